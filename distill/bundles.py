"""The last stage of a build: a task student becomes a bundle, timed against its teacher under the same engine."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from app.bundle import Bundle, Variant, revisions
from app.choice import open_engine
from app.engines.onnx import Engine
from app.errors import DataError
from app.predictor import Predictor
from distill import config as configuration
from distill import datasets, inputs, stage, vocabulary
from distill.benchmark import compare
from distill.build import evaluated, opened_teacher, sample_texts
from distill.corpus import files, lines
from distill.datasets.base import provenance
from distill.efficiency import TIMED_ITEMS, rows_alone
from distill.evaluate import judge, open_tokenizer, predictions
from distill.export import export_onnx
from distill.familiar import familiarity
from distill.publish import publish
from distill.recipe import Build
from distill.report import licence
from distill.tasks.base import training_task
from distill.teach import open_model, read_sources, thin
from distill.teacher import load_tokenizer, resolve, wrap

_FAMILIAR_TEXTS = 20_000
_CONDITIONS = "ONNX Runtime, or the engine named, on CPU, {threads} thread(s), one row a micro-batch, interleaved"


def export(build: Build, task: str, *, command: str = "") -> dict[str, Any]:
    """Publish `<task>/transfer/model` to the store; the report names the bundle, and its card `command`.

    Both are exported in fp32 for the benchmark alone, which runs them on one engine, with the same threads and batches:
    rows as the student reads them, for a teacher of whose vocabulary the student's is a part. Where the teacher is
    published too, it is first, so that no student is published again after a teacher that could not be.
    """
    moved = stage.report(build.folder / task / "transfer", command="transfer")
    distilled = stage.report(build.folder / "distill", command="distill")
    scored = evaluated(build, task)
    taught = stage.report(build.folder / task / "teach", command="teach")
    trimmed = stage.report(build.folder / "trim", command="trim")
    training, tuning = training_task(task), build.tuning(task)

    def work(folder: Path) -> Mapping[str, Any]:
        source = build.folder / task / "transfer" / "model"
        model = open_model(source, training, dropout=0.0, attn_implementation="eager", seed=0).eval()
        if build.export.vocabulary == "target":
            source = _cut_to_target(build, model, source, folder / "tokenizer")
        pad_id = int(model.config.pad_token_id)
        lengths = {"max_length": tuning.max_length, "stride": tuning.stride, "pad_id": pad_id}
        codec = training.codec_for(**lengths)
        data = read_sources(task, build.data, build.labels, target=build.tgt, max_examples=0, max_dev=tuning.max_dev)
        test = thin(datasets.read(task, build.data, build.tgt, "test").examples, build.export.test_examples)

        def measure(staged: Path, variants: tuple[Variant, ...]) -> dict[str, Any]:
            teacher = opened_teacher(build, task, attn_implementation="eager")
            export_onnx(teacher, folder / "teacher.onnx")
            batches = rows_alone(training, thin(test, TIMED_ITEMS), staged, **lengths)
            threads = torch.get_num_threads()
            speed: dict[str, Any] = {"conditions": _CONDITIONS.format(threads=threads)}
            export_onnx(model, folder / "student.onnx")
            engine = Engine.open(folder, file="teacher.onnx", threads=threads)
            peers = {"fp32": (folder, Variant(name="fp32", file="student.onnx"))}
            peers |= {variant.name: (staged, variant) for variant in variants if variant.name != "fp32"}
            for name, (where, variant) in peers.items():
                mine = open_engine(where, variant, threads=threads)
                speed[f"teacher_fp32_against_student_{name}"] = compare(
                    engine, mine, batches, rounds=build.export.rounds
                )
                mine.close()
            engine.close()
            scores = dict(scored["scores"])
            for variant in variants:
                predictor = Predictor(codec, open_tokenizer(staged), open_engine(staged, variant), pad_id=pad_id)
                found = predictions(predictor, test, progress=False)
                scores[f"student {variant.name}"] = judge(training, test, found)
                predictor.close()
            sizes = {
                "teacher_parameters": sum(p.numel() for p in teacher.parameters()),
                "student_parameters": sum(p.numel() for p in model.parameters()),
                "student_bytes": {v.name: sum((staged / file).stat().st_size for file in v.files) for v in variants},
                "teacher_bytes": {"fp32": (folder / "teacher.onnx").stat().st_size},
            }
            return {"benchmark": {**sizes, **speed}, "scores": scores}

        known = {
            language: list(sample_texts(build, _FAMILIAR_TEXTS, language=language)) for language in build.languages
        }
        manifest = {
            "language": build.tgt,
            "source_languages": build.labels,
            **lengths,
            "teacher": {
                "source": Path(build.teacher).name if Path(build.teacher).exists() else build.teacher,
                "sha256": inputs.identity(resolve(build.teacher)),
                "pieces": trimmed["pieces_before"],
                "kept_pieces": trimmed["pieces_after"],
                "unk_rate": trimmed["unk_rate"],
            },
            "familiar": familiarity(open_tokenizer(source), known),
            "data": [*taught["data"], *scored["data"]],
            "config": {"command": command, **_recipe(build, task)},
            "seed": tuning.seed,
            "licence": build.licence or licence([*taught["data"], *scored["data"], *teacher_data(build)]),
        }
        calibration = list(sample_texts(build, build.export.calibration_texts, language=build.tgt))
        how: dict[str, Any] = {
            "staging": folder / "staging",
            "precisions": build.export.precisions,
            "engines": build.export.engines,
            "exporter": build.export.exporter,
        }
        if build.export.teacher_store:
            publish(
                opened_teacher(build, task, attn_implementation="eager"),
                build.folder / task / "teach" / "model",
                training,
                data.dev,
                calibration,
                {**manifest, "scores": {who: scored["scores"][who] for who in ("baseline", "teacher")}},
                store=Path(build.export.teacher_store),
                **how,
            )
        bundle = publish(
            model,
            source,
            training,
            data.dev,
            calibration,
            {**manifest, "layer_map": tuple(distilled["layer_map"])},
            store=build.store,
            measure=measure,
            **how,
        )
        stage.discard(folder, "teacher.onnx", "student.onnx", "tokenizer")
        return {"bundle": str(bundle)}

    decided = inputs.export(build, transfer=moved["fingerprint"], evaluate=scored["fingerprint"])
    report = stage.run(build.folder / task / "export", decided, work)
    if not Path(report["bundle"]).is_dir():
        stage.discard(build.folder / task / "export", "stage.json")
        report = stage.run(build.folder / task / "export", decided, work)
    return report


def _cut_to_target(build: Build, model: PreTrainedModel, source: Path, out: Path) -> Path:
    """Cut `model`, in place, and the tokenizer in `source`, into `out`, to the pieces of the target's text.

    Texts of the target whose pieces survive keep them, and so their answers.
    """
    tokenizer = load_tokenizer(source)
    backend = tokenizer.backend_tokenizer
    counts = {build.tgt: vocabulary.count(backend, lines(build.texts, build.tgt))}
    kept = vocabulary.select(
        counts, backend, threshold=build.export.threshold, keep_characters=build.student.keep_characters
    )
    cut = wrap(vocabulary.trim_tokenizer(backend, kept), like=tokenizer)
    vocabulary.check(backend, cut.backend_tokenizer, kept, sample=list(sample_texts(build, 500, language=build.tgt)))
    vocabulary.slice_embeddings(model, kept)
    vocabulary.save_tokenizer(cut, out)
    return out


def teacher_data(build: Build) -> list[dict[str, Any]]:
    """The text that teacher and student have read: a teacher made by `pretrain` says what it was, others do not."""
    told = resolve(build.teacher) / "pretrain.json"
    before = json.loads(told.read_text(encoding="utf-8"))["data"] if told.is_file() else []
    read = [
        provenance(path, path.parent.parent) for language in build.languages for path in files(build.texts, language)
    ]
    return [*before, *read]


def verify(folder: Path) -> list[Path]:
    """Check every bundle at or below `folder` and return them.

    Raises BundleError on the first that is not whole, DataError where there is none.
    """
    if (folder / "manifest.json").is_file():
        found = [folder]
    else:
        tasks = sorted({path.parent.parent for path in folder.glob("**/manifest.json")})
        found = [task / str(revision) for task in tasks for revision in revisions(task)]
    if not found:
        raise DataError(f"{folder} holds no bundle: expected <language>/<task>/<revision>/manifest.json")
    for bundle in found:
        Bundle.open(bundle, verify=True)
    return found


def summary(build: Build) -> list[dict[str, Any]]:
    """One row a task for the table that ends a build, read from the published manifests."""
    rows = []
    for task in build.tasks:
        folder = Path(stage.report(build.folder / task / "export", command="export")["bundle"])
        manifest = Bundle.open(folder).manifest
        metric = training_task(task).main_metric
        scores, benchmark = manifest.scores, manifest.benchmark
        fastest = manifest.variants[0].name
        fp32 = benchmark["teacher_fp32_against_student_fp32"]["speedup"]
        best = benchmark[f"teacher_fp32_against_student_{fastest}"]["speedup"]
        rows.append(
            {
                "task": task,
                "metric": metric,
                "baseline": scores["baseline"][metric],
                "teacher": scores["teacher"][metric],
                "student": scores["student"][metric],
                f"student, {fastest}" if fastest == "int8" else "student, fastest": scores[f"student {fastest}"][
                    metric
                ],
                "teacher parameters": f"{benchmark['teacher_parameters'] / 1e6:.1f} M",
                "student parameters": f"{benchmark['student_parameters'] / 1e6:.1f} M",
                "MB": round(benchmark["student_bytes"][fastest] / 1e6, 1),
                "speed-up, fp32": fp32,
                "speed-up, fastest": best,
                "bundle": str(folder),
            }
        )
    return rows


def _recipe(build: Build, task: str) -> dict[str, Any]:
    """The configuration without the folders of the machine it ran on."""
    plain = configuration.plain(build)
    for name in ("data", "text", "out", "pool", "store", "teacher"):
        plain.pop(name)
    plain["export"].pop("teacher_store")
    plain["teach"], plain["transfer"] = asdict(build.tuning(task)), asdict(build.phase2(task))
    return plain
