"""The last stage: export, gate, and write the bundle."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from app.bundle import Manifest, Variant, next_revision, write
from app.engines.onnx import Engine
from app.errors import ConfigError, DataError, InputTooLong, UnknownChoice
from app.microbatches import Cost, cut
from app.predictor import Predictor
from app.rows import Row, Tensors, pad
from app.tasks.base import Task
from distill import export, optimum
from distill.evaluate import evaluate, open_tokenizer
from distill.export import ExportError, parity
from distill.quantize import quantize
from distill.report import card
from distill.tasks.base import Example, TrainingTask

FILES = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
EXPORTERS = {"torch": export.export_onnx, "optimum": optimum.export_onnx}
PARITY = 1e-4
INT8_POINTS = 0.5
_LIBRARIES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")

Measure = Callable[[Path, tuple[Variant, ...]], Mapping[str, Any]]
log = logging.getLogger(__name__)


def publish(
    model: PreTrainedModel,
    tokenizer_folder: Path,
    task: TrainingTask,
    examples_dev: Sequence[Example],
    calibration_texts: Sequence[str],
    manifest_fields: Mapping[str, Any],
    *,
    store: Path,
    staging: Path,
    precisions: Sequence[str] = ("fp32", "int8"),
    exporter: str = "torch",
    measure: Measure | None = None,
) -> Path:
    """Export the model in these precisions, gate them, and write `<store>/<language>/<task>/<next revision>`.

    `manifest_fields` needs language, max_length, stride and pad_id and may hold any other field of the manifest but
    those that follow from the rest. `measure` sees the staged folder and its variants before the manifest is written
    and returns further fields, for example scores on test data and the benchmark. `staging` is emptied first and
    removed in the end. Raises ExportError where fp32 differs from torch by more than 1e-4 in any logit, ConfigError on
    fields that are missing. An int8 form that loses more than 0.5 points of dev main metric is left out; where it was
    the only one asked for, fp32 takes its place.
    """
    missing = [name for name in ("language", "max_length", "stride", "pad_id") if name not in manifest_fields]
    if missing:
        raise ConfigError(f"the manifest needs the field {missing[0]!r}")
    lengths = {name: int(manifest_fields[name]) for name in ("max_length", "stride", "pad_id")}
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        _stage_texts(model, tokenizer_folder, task, staging, max_length=lengths["max_length"])
        codec = task.codec_for(**lengths)
        variants = stage_models(
            model,
            codec,
            task,
            examples_dev,
            calibration_texts,
            staging=staging,
            precisions=precisions,
            exporter=exporter,
        )
        fields = {**manifest_fields, **(measure(staging, variants) if measure else {})}
        manifest = _manifest(fields, task, variants, store)
        (staging / "card.md").write_text(card(manifest), encoding="utf-8")
        folder = write(staging, manifest, store=store)
    except OSError as error:
        raise ExportError(f"the bundle cannot be written: {error}") from error
    shutil.rmtree(staging, ignore_errors=True)
    return folder


def stage_models(
    model: PreTrainedModel,
    codec: Task[Any, Any],
    task: TrainingTask,
    examples_dev: Sequence[Example],
    calibration_texts: Sequence[str],
    *,
    staging: Path,
    precisions: Sequence[str],
    exporter: str = "torch",
) -> tuple[Variant, ...]:
    """Write the model files that pass their gates into `staging`, where the tokenizer is; the fastest variant first."""
    for precision in precisions:
        if precision not in FILES:
            raise UnknownChoice("precision", precision, FILES)
    if exporter not in EXPORTERS:
        raise UnknownChoice("exporter", exporter, EXPORTERS)
    tokenizer = open_tokenizer(staging)
    calibration = _batches(codec, tokenizer, task.items(list(calibration_texts)))
    if not calibration:
        raise DataError("the export needs calibration texts, and was given none that fit the model")
    fp32 = staging / FILES["fp32"]
    EXPORTERS[exporter](model, fp32)
    difference = parity(model, fp32, calibration[:8])
    if difference > PARITY:
        raise ExportError(f"the exported model differs from torch by {difference:.1e} in a logit, above {PARITY:.0e}")
    scores = _dev_scores(codec, task, tokenizer, examples_dev, staging, "fp32")
    found = [Variant(name="fp32", file=FILES["fp32"], precision="fp32", scores=scores)]
    if "int8" in precisions:
        quantize(fp32, staging / FILES["int8"], calibration=calibration)
        scores = _dev_scores(codec, task, tokenizer, examples_dev, staging, "int8")
        lost = found[0].scores[task.main_metric] - scores[task.main_metric]
        if lost > INT8_POINTS:
            log.warning("int8 loses %.2f points of dev %s: not published", lost, task.main_metric)
            (staging / FILES["int8"]).unlink()
        else:
            found.insert(0, Variant(name="int8", file=FILES["int8"], precision="int8", scores=scores))
    kept = [variant for variant in found if variant.precision in precisions] or found
    if not any(variant.precision == "fp32" for variant in kept):
        fp32.unlink()
    return tuple(kept)


def _dev_scores(
    codec: Task[Any, Any],
    task: TrainingTask,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    staging: Path,
    precision: str,
) -> dict[str, float]:
    engine = Engine.open(staging, file=FILES[precision])
    predictor = Predictor(codec, tokenizer, engine, pad_id=codec.pad_id)  # type: ignore[attr-defined]
    scores = evaluate(predictor, task, examples, progress=False)
    engine.close()
    return scores


def _batches(codec: Task[Any, Any], tokenizer: Tokenizer, items: Sequence[Any]) -> list[Tensors]:
    """The items' rows in batches of like length; items that are too long are left out."""
    rows: list[Row] = []
    for item in items:
        try:
            rows += codec.encode(item, tokenizer)
        except InputTooLong:
            continue
    return [
        {**pad([rows[index] for index in batch], pad_id=codec.pad_id)}  # type: ignore[attr-defined]
        for batch in cut([len(row) for row in rows], cost=Cost(), token_budget=1024)
    ]


def _stage_texts(
    model: PreTrainedModel, tokenizer_folder: Path, task: TrainingTask, staging: Path, *, max_length: int
) -> None:
    """Tokenizer and config in transformers' form, without the paths they were loaded from and without indentation."""
    tokenizer = json.loads((tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (staging / "tokenizer.json").write_text(compact, encoding="utf-8")
    settings = tokenizer_folder / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    values.pop("name_or_path", None)
    values["model_max_length"] = max_length
    # of either major version of transformers the class that takes tokenizer.json as it is
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write_json(staging / "tokenizer_config.json", values)
    if task.labels:
        model.config.id2label = dict(enumerate(task.labels))
        model.config.label2id = {label: index for index, label in enumerate(task.labels)}
    model.config.architectures = [type(model).__name__]
    values = {
        key: value for key, value in model.config.to_dict().items() if key not in ("_name_or_path", "name_or_path")
    }
    _write_json(staging / "config.json", values)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _manifest(fields: Mapping[str, Any], task: TrainingTask, variants: tuple[Variant, ...], store: Path) -> Manifest:
    return Manifest(
        **{
            "versions": {name: version(name) for name in _LIBRARIES},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
            "task": task.name,
            "codec": task.codec,
            "labels": task.labels,
            "variants": variants,
            "revision": fields.get("revision") or next_revision(store, str(fields["language"]), task.name),
        }
    )
