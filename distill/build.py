"""`build`: every stage from a multilingual teacher to published bundles."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from app.errors import ConfigError, DataError
from distill import adaptation, datasets, inputs, processes, stage, unlabelled, vocabulary
from distill.bilingual import PROJECTION, distil
from distill.corpus import files, lines
from distill.delta import SparseDelta
from distill.evaluate import judge, open_tokenizer, predictions, predictor_for
from distill.inputs import EVALUATED, carried
from distill.observation import attention_to_show
from distill.publish import forms, require
from distill.recipe import Build
from distill.student import create, layer_map, load_student
from distill.tasks.base import Example, task_named, training_task
from distill.teach import TaskData, open_model, read_sources, teach, thin
from distill.teacher import load_teacher
from distill.transfer import transfer

TERMS = "terms.npy"
SFT = "delta.safetensors"
STAGES = ("trim", "adapt", "student", "distill", "teach", "transfer", "evaluate", "export")


def check(build: Build) -> None:
    """Every mistake that can be seen before the work starts, raised at once as a ConfigError or DataError."""
    codecs = [task_named(task).codec for task in build.tasks]
    try:
        forms(build.export.engines, build.export.precisions)
    except ConfigError as error:
        raise ConfigError(f"export.engines, export.precisions: {error}") from error
    require(build.export.engines, build.export.exporter, codecs)
    problems: list[str] = []
    for language in build.languages:
        try:
            files(build.texts, language)
        except DataError as error:
            problems.append(str(error))
    for task in build.tasks:
        learnt = [(language, split) for language in build.labels for split in ("train", "dev")]
        for language, split in [*learnt, (build.tgt, "test")]:
            try:
                datasets.read(task, build.data, language, split, target="" if split == "test" else build.tgt)
            except DataError as error:
                problems.append(str(error))
    free = shutil.disk_usage(_existing(build.out)).free
    if free < 2 * 2**30:
        problems.append(f"no disk space for {build.out}: 2 GiB needed, {free >> 20} MiB free")
    if problems:
        told = "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
        raise DataError(f"the build cannot start:\n{told}")
    teacher, _ = load_teacher(build.teacher)
    layer_map(teacher.config.num_hidden_layers, build.student.layer_reduction_factor)
    _check_lengths(build, teacher)


def _check_lengths(build: Build, teacher: PreTrainedModel) -> None:
    """Raises ConfigError where a row may be longer than the teacher has positions."""
    config = teacher.config
    if not getattr(config, "position_biased_input", True):  # DeBERTa-v3 knows distances alone
        return
    offset = config.pad_token_id + 1 if config.model_type == "xlm-roberta" else 0
    positions = config.max_position_embeddings - offset
    lengths = {"phase1.sequence_length": build.phase1.sequence_length}
    if build.adapted and build.adapt is not None:
        lengths["adapt.sequence_length"] = build.adapt.sequence_length
    for task in build.tasks:
        taught, moved = (task if task in table else "default" for table in (build.teach, build.transfer))
        lengths[f"teach.{taught}.max_length"] = build.tuning(task).max_length
        lengths[f"transfer.{moved}.tuning.max_length"] = build.phase2(task).tuning.max_length
    if long := [f"{name} = {length}" for name, length in lengths.items() if length > positions]:
        raise ConfigError(f"{', '.join(long)}: the teacher has {positions} positions, so it can be at most {positions}")


def trim(build: Build) -> dict[str, Any]:
    """The teacher cut to the pieces of the languages' texts: `trim/model`."""

    def work(folder: Path) -> Mapping[str, Any]:
        _, tokenizer = load_teacher(build.teacher)
        backend = tokenizer.backend_tokenizer
        counts = {language: vocabulary.count(backend, lines(build.texts, language)) for language in build.languages}
        kept = vocabulary.select(
            counts, backend, threshold=build.student.threshold, keep_characters=build.student.keep_characters
        )
        shutil.rmtree(folder / "model", ignore_errors=True)
        sample = [text for language in build.languages for text in islice(lines(build.texts, language), 500)]
        model = vocabulary.trim(build.teacher, kept, folder / "model", sample=sample)
        after = open_tokenizer(model)
        rates = {
            language: {
                "before": vocabulary.unk_rate(backend, islice(lines(build.texts, language), 20_000)),
                "after": vocabulary.unk_rate(after, islice(lines(build.texts, language), 20_000)),
            }
            for language in build.languages
        }
        return {"pieces_before": len(tokenizer), "pieces_after": len(kept), "unk_rate": rates}

    return stage.run(build.folder / "trim", inputs.trim(build), work, pool=build.pool)


def adapt(build: Build) -> None:
    """The languages' SFTs of the trimmed teacher, learnt or published: `adapt-<language>/delta.safetensors`."""
    before = stage.report(build.folder / "trim", command="trim")
    how = build.adapt
    if how is None:
        raise ConfigError(adaptation.UNSAID)
    source = build.folder / "trim" / "model"
    for language in build.languages:

        def get(folder: Path, language: str = language) -> Mapping[str, Any]:
            told: dict[str, Any] = {}
            if language in how.files:
                delta = adaptation.published(how.files[language], source)
            else:
                work = folder / "work"
                learnt = adaptation.learn(source, language, adaptation=how, text=build.texts, folder=work)
                delta, told = learnt.delta, learnt.figures
            if processes.is_main():
                delta.save(folder / SFT, metadata={"base": before["fingerprint"], "language": language})
                stage.discard(folder, "work")
            return {**told, "changed": delta.n_entries}

        decided = inputs.adapt(build, language, trim=before["fingerprint"])
        stage.run(build.folder / f"adapt-{language}", decided, get, pool=build.pool, together=True)


def _sfts(build: Build, *languages: str) -> dict[str, SparseDelta]:
    """The language SFTs that teachers carry: none without `adapted`."""
    if not build.adapted:
        return {}
    _marks(build, *languages)
    return {language: SparseDelta.load(build.folder / f"adapt-{language}" / SFT) for language in languages}


def _marks(build: Build, *languages: str) -> dict[str, str]:
    """The fingerprints of `_sfts`, for the inputs of a stage."""
    used = languages if build.adapted else ()
    return {name: stage.report(build.folder / f"adapt-{name}", command="adapt")["fingerprint"] for name in used}


def student(build: Build) -> dict[str, Any]:
    """The student before training: `student/model`."""
    before = stage.report(build.folder / "trim", command="trim")

    def work(folder: Path) -> Mapping[str, Any]:
        teacher, _ = load_teacher(build.folder / "trim" / "model")
        made = create(
            teacher,
            layer_reduction_factor=build.student.layer_reduction_factor,
            hidden_size_reduction_factor=build.student.hidden_size_reduction_factor,
            strategy=build.student.strategy,
            initialization=build.student.initialization,
            seed=build.phase1.schedule.seed,
        )
        _save(made, folder / "model", tokenizer=build.folder / "trim" / "model")
        layers = layer_map(
            teacher.config.num_hidden_layers,
            build.student.layer_reduction_factor,
            build.student.alignment or build.student.strategy,
        )
        return {"layer_map": list(layers), "parameters": made.num_parameters()}

    decided = inputs.student(build, trim=before["fingerprint"])
    return stage.run(build.folder / "student", decided, work, pool=build.pool)


def phase1(build: Build) -> dict[str, Any]:
    """Phase 1, bilingual distillation: `distill/model`."""
    before = stage.report(build.folder / "student", command="student")
    trimmed = stage.report(build.folder / "trim", command="trim")

    def work(folder: Path) -> Mapping[str, Any]:
        source = build.folder / "trim" / "model"
        attention = attention_to_show(build.phase1.needs)
        teacher, _ = load_teacher(source, attn_implementation=attention)
        learner = load_student(build.folder / "student" / "model", attn_implementation=attention)
        trained = distil(
            learner,
            adaptation.per_language(teacher, _sfts(build, *build.languages)),
            phase=build.phase1,
            layers=tuple(before["layer_map"]),
            text=build.texts,
            languages=build.languages,
            folder=folder,
            packed=build.pool / f"packed-{trimmed['fingerprint'][:16]}" if build.pool else folder / "packed",
            tokenizer_folder=source,
            initialization=build.student.initialization,
        )
        if processes.is_main():
            _save(learner, folder / "model", tokenizer=source)
            stage.discard(folder, "checkpoint", "best.safetensors", "packed", "packed.lock")
        return {**asdict(trained), "layer_map": before["layer_map"]}

    decided = inputs.distill(build, student=before["fingerprint"], sfts=_marks(build, *build.languages))
    return stage.run(build.folder / "distill", decided, work, pool=build.pool, together=True)


def task_teacher(build: Build, task: str) -> dict[str, Any]:
    """The trimmed teacher tuned on the source languages' labels: `<task>/teach/model`."""
    before = stage.report(build.folder / "trim", command="trim")
    tuning = build.tuning(task)

    def work(folder: Path) -> Mapping[str, Any]:
        data = _labelled(build, task, max_examples=tuning.max_examples, max_dev=tuning.max_dev)
        source = build.folder / "trim" / "model"
        sfts = _sfts(build, *carried(build))
        model, trained = teach(source, data, tuning=tuning, folder=folder, sfts=tuple(sfts.values()))
        if processes.is_main():
            _save(model, folder / "model", tokenizer=source)
            stage.discard(folder, "checkpoint", "best.safetensors")
        return {**asdict(trained), "data": data.files}

    decided = inputs.teach(build, task, trim=before["fingerprint"], sfts=_marks(build, *carried(build)))
    return stage.run(build.folder / task / "teach", decided, work, pool=build.pool, together=True)


def task_student(build: Build, task: str) -> dict[str, Any]:
    """Phase 2, task distillation: `<task>/transfer/model` and the delta from the phase-1 student."""
    distilled = stage.report(build.folder / "distill", command="distill")
    taught = stage.report(build.folder / task / "teach", command="teach")
    phase = build.phase2(task)

    def work(folder: Path) -> Mapping[str, Any]:
        data = _labelled(build, task, max_examples=phase.tuning.max_examples, max_dev=phase.tuning.max_dev)
        source, layers = build.folder / "distill" / "model", tuple(distilled["layer_map"])
        wanted = max(1, round(phase.unlabelled_share * len(data.train)))
        texts = unlabelled.sample(build.texts, build.tgt, wanted) if phase.unlabelled_share else []
        model, result = transfer(
            source,
            build.folder / task / "teach" / "model",
            data,
            phase=phase,
            layers=layers,
            copied=build.student.copied(layers),
            folder=folder,
            texts=texts,
            untuned=build.folder / "trim" / "model",
            sfts=tuple(_sfts(build, *carried(build)).values()),
            projection=build.folder / "distill" / PROJECTION,
        )
        if not processes.is_main():
            return {}
        _save(model, folder / "model", tokenizer=source)
        base = distilled["fingerprint"] if phase.start == "student" else f"{phase.start} of {taught['fingerprint']}"
        if phase.intermediate:
            base = f"intermediate objectives from {base}"
        result.delta.save(folder / "delta.safetensors", metadata={"base": base, "task": task})
        stage.discard(
            folder,
            "full/checkpoint",
            "full/best.safetensors",
            "intermediate/checkpoint",
            "sparse/checkpoint",
            "sparse/best.safetensors",
            "start.safetensors",
        )
        return result.figures

    decided = inputs.transfer(build, task, distill=distilled["fingerprint"], teach=taught["fingerprint"])
    return stage.run(build.folder / task / "transfer", decided, work, pool=build.pool, together=True)


def evaluation(build: Build, task: str) -> dict[str, Any]:
    """Baseline, teacher and student on the target's test data, with intervals, the two through the code that serves."""
    for who, where in EVALUATED.items():
        _evaluate(build, task, who, where)
    _evaluate_baseline(build, task)
    return evaluated(build, task)


def evaluated(build: Build, task: str) -> dict[str, Any]:
    """What `evaluation` found: scores of baseline, teacher and student, the data, the number of examples."""
    found = {
        who: stage.report(build.folder / task / f"evaluate-{who}", command="evaluate")
        for who in ("baseline", *EVALUATED)
    }
    return {
        "scores": {who: report["scores"] for who, report in found.items()},
        "data": found["student"]["data"],
        "examples": found["student"]["examples"],
        "fingerprint": stage.fingerprint([report["fingerprint"] for report in found.values()]),
    }


def _evaluate(build: Build, task: str, who: str, where: str) -> dict[str, Any]:
    """One model's scores, and `terms.npy`, what each item adds to the main metric: `<task>/evaluate-<who>`."""
    made = stage.report(build.folder / task / where, command=where)

    def work(folder: Path) -> Mapping[str, Any]:
        examples, files = _test_data(build, task)
        training, tuning = training_task(task), build.tuning(task)
        source = build.folder / task / where / "model"
        if who == "teacher":
            model = opened_teacher(build, task, attn_implementation="sdpa")
        else:
            model = open_model(source, training, dropout=0.0, attn_implementation="sdpa", seed=0).eval()
        processes.place(model)
        predictor = predictor_for(
            model,
            open_tokenizer(source),
            training,
            max_length=tuning.max_length,
            stride=tuning.stride,
            pad_id=int(model.config.pad_token_id),
        )
        found = predictions(predictor, examples)
        np.save(folder / TERMS, training.terms([example.gold for example in examples], found))
        return {"scores": judge(training, examples, found), "data": files, "examples": len(examples)}

    decided = inputs.evaluate(build, task, who, made=made["fingerprint"])
    return stage.run(build.folder / task / f"evaluate-{who}", decided, work, pool=build.pool)


def opened_teacher(build: Build, task: str, *, attn_implementation: str) -> PreTrainedModel:
    """The task teacher as the target sees it: with the target's SFT in place of that of its labels' language."""
    source = build.folder / task / "teach" / "model"
    model: PreTrainedModel = open_model(
        source, training_task(task), dropout=0.0, attn_implementation=attn_implementation, seed=0
    ).eval()
    if build.adapted and carried(build) not in ((), (build.tgt,)):
        adaptation.swap(model, *_sfts(build, *carried(build), build.tgt).values())
    return model


def _evaluate_baseline(build: Build, task: str) -> dict[str, Any]:
    """The scores of what the labels alone tell, and how they do: `<task>/evaluate-baseline`."""

    def work(folder: Path) -> Mapping[str, Any]:
        training = training_task(task)
        data = _labelled(build, task, max_examples=build.tuning(task).max_examples, max_dev=1)
        examples, _ = _test_data(build, task)
        found = training.baseline(data.train, [example.item for example in examples])
        return {"scores": {**judge(training, examples, found), "rule": training.baseline_rule}}

    decided = inputs.evaluate_baseline(build, task)
    return stage.run(build.folder / task / "evaluate-baseline", decided, work, pool=build.pool)


def _labelled(build: Build, task: str, *, max_examples: int, max_dev: int) -> TaskData:
    """What teacher, student and baseline learn from."""
    return read_sources(task, build.data, build.labels, target=build.tgt, max_examples=max_examples, max_dev=max_dev)


def _test_data(build: Build, task: str) -> tuple[list[Example], list[dict[str, Any]]]:
    """The target's examples to score on, and the files that they are from."""
    corpus = datasets.read(task, build.data, build.tgt, "test")
    return thin(corpus.examples, build.export.test_examples), corpus.files


def _save(model: PreTrainedModel, folder: Path, *, tokenizer: Path) -> None:
    """Model and tokenizer, complete or absent."""
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, fresh / name)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def sample_texts(build: Build, count: int, *, language: str) -> Iterator[str]:
    """At most `count` lines of a language's text at even distances."""
    total = sum(1 for _ in lines(build.texts, language))
    chosen = {i * total // count for i in range(count)}
    return (line for place, line in enumerate(lines(build.texts, language)) if place in chosen)
