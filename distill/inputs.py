"""What decides a stage's result, its inputs. Their hash is its fingerprint, and an input of the stages after it."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from distill import composable_sft, packed, stage
from distill.corpus import files
from distill.layout import sources, translated
from distill.recipe import Build
from distill.teacher import TOKENIZER_FILES, resolve

Inputs = dict[str, Any]

EVALUATED = {"teacher": "teach", "student": "transfer"}
"""Who is evaluated, and the stage that made it."""


def trim(build: Build) -> Inputs:
    return {
        "teacher": identity(resolve(build.teacher)),
        "threshold": build.student.threshold,
        "keep_characters": build.student.keep_characters,
        "text": text_files(build),
    }


def adapt(build: Build, language: str, *, trim: str) -> Inputs:
    inputs = {"trim": trim, "language": language, "adapt": asdict(build.adapt) if build.adapt else None}
    if build.adapt and language in build.adapt.files:
        inputs["published"] = _content(composable_sft.file(build.adapt.files[language]))
    return inputs


def student(build: Build, *, trim: str) -> Inputs:
    inputs = {"trim": trim, **asdict(build.student)}
    if build.student.initialization == "random" or build.student.hidden_size_reduction_factor > 1:
        inputs["seed"] = build.phase1.schedule.seed
    return inputs


def distill(build: Build, *, student: str, sfts: Mapping[str, str]) -> Inputs:
    return {"student": student, "phase1": asdict(build.phase1), "sfts": sfts}


def teach(build: Build, task: str, *, trim: str, sfts: Mapping[str, str]) -> Inputs:
    return {
        "task": task,
        "trim": trim,
        "tuning": asdict(build.tuning(task)),
        "labels": build.labels,
        "sfts": sfts,
        "data": training_files(build, task),
    }


def transfer(build: Build, task: str, *, distill: str, teach: str) -> Inputs:
    phase = build.phase2(task)
    inputs = {"distill": distill, "teach": teach, "phase2": asdict(phase), "labels": build.labels}
    if phase.start != "student":
        inputs["copied"] = build.student.strategy
    return inputs


def evaluate(build: Build, task: str, who: str, *, made: str) -> Inputs:
    return {
        EVALUATED[who]: made,
        "tgt": build.tgt,
        "data": label_files(build.data, task, build.tgt, "test"),
        "n": build.export.test_examples,
    }


def evaluate_baseline(build: Build, task: str) -> Inputs:
    return {
        "task": task,
        "labels": build.labels,
        "data": [training_files(build, task), label_files(build.data, task, build.tgt, "test")],
        "max_examples": build.tuning(task).max_examples,
        "tgt": build.tgt,
        "n": build.export.test_examples,
    }


def export(build: Build, *, transfer: str, evaluate: str) -> Inputs:
    return {
        "transfer": transfer,
        "evaluate": evaluate,
        "export": asdict(build.export),
        "store": str(build.store),
        "licence": build.licence,
    }


def fingerprints(build: Build) -> dict[str, str]:
    """Of every stage of the build, by its folder; nothing has to have been run."""
    mark = stage.fingerprint
    marks = {"trim": mark(trim(build))}
    learnt = {language: mark(adapt(build, language, trim=marks["trim"])) for language in build.languages}
    sfts = learnt if build.adapted else {}
    marks |= {f"adapt-{language}": value for language, value in learnt.items()}
    marks["student"] = mark(student(build, trim=marks["trim"]))
    marks["distill"] = mark(distill(build, student=marks["student"], sfts=sfts))
    of_labels = {language: sfts[language] for language in carried(build) if language in sfts}
    for task in build.tasks:
        taught = mark(teach(build, task, trim=marks["trim"], sfts=of_labels))
        moved = mark(transfer(build, task, distill=marks["distill"], teach=taught))
        scored = {"baseline": mark(evaluate_baseline(build, task))}
        for who, made in (("teacher", taught), ("student", moved)):
            scored[who] = mark(evaluate(build, task, who, made=made))
        bundle = mark(export(build, transfer=moved, evaluate=mark([scored[who] for who in ("baseline", *EVALUATED)])))
        marks |= {f"{task}/teach": taught, f"{task}/transfer": moved, f"{task}/export": bundle}
        marks |= {f"{task}/evaluate-{who}": value for who, value in scored.items()}
    return marks


def carried(build: Build) -> tuple[str, ...]:
    """The language whose SFT a task teacher carries: that of its labels, where they are of one."""
    return build.labels if len(build.labels) == 1 else ()


def identity(folder: Path) -> str:
    """A hash over a model folder's weights, configuration and tokenizer: another model of one name is another input.

    Packed weights count as what they were packed from.
    """
    parts = []
    tokenizer = next((name for name in TOKENIZER_FILES if (folder / name).is_file()), None)
    for path in sorted(folder.iterdir()):
        if path.name == packed.WEIGHTS:
            parts.append(("model.safetensors", packed.digest(folder)))
        elif path.suffix == ".safetensors" or path.name in ("config.json", tokenizer):
            with path.open("rb") as stream:
                parts.append((path.name, hashlib.file_digest(stream, "sha256").hexdigest()))
    return stage.fingerprint(sorted(parts))


def training_files(build: Build, task: str) -> list[list[str]]:
    """`label_files` of all that is learnt from, that chooses weights, and that tells what must not be learnt from."""
    read = [(language, split) for language in build.labels for split in ("train", "dev")]
    found = [label_files(build.data, task, language, split) for language, split in read]
    originals = [path for language in build.labels for path in translated(task, build.data, language, build.tgt)]
    return [*found, [_content(path) for path in originals]] if originals else found


def label_files(data: Path, task: str, language: str, split: str) -> list[str]:
    """The sha256 of every file that the labels of a split are read from, in the order of reading."""
    found = [source.path for source in sources(task, data, language, split)]
    return [_content(path) for path in found]


def _content(path: Path) -> str:
    return _sha256(path, path.stat().st_mtime_ns)


@cache
def _sha256(path: Path, modified: int) -> str:
    """`modified` is there for the cache."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_files(build: Build) -> list[tuple[str, int]]:
    """Name and size of every file of plain text of the build's languages."""
    return [(path.name, path.stat().st_size) for language in build.languages for path in files(build.texts, language)]
