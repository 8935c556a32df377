"""The last stage: export, gate, and write the bundle."""

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel

from app.bundle import Manifest, Variant, next_revision, write
from app.choice import open_engine
from app.errors import ConfigError, DataError, InputTooLong, UnknownChoice
from app.microbatches import Cost, cut
from app.predictor import Predictor
from app.rows import Row, Tensors, pad
from app.tasks.base import Task
from distill import export, openvino, optimum
from distill.beside import beside
from distill.evaluate import evaluate, open_tokenizer
from distill.export import ExportError, parity
from distill.quantize import quantize
from distill.report import card
from distill.tasks.base import Example, TrainingTask


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a model down: for an engine, in a precision, as a file."""

    engine: str
    precision: str
    file: str

    @property
    def name(self) -> str:
        """The variant's name: the precision, after the engine where that is not ONNX Runtime."""
        return self.precision if self.engine == "onnx" else f"{self.engine}_{self.precision}"


FP32 = Form("onnx", "fp32", "model.onnx")
FORMS = (
    Form("onnx", "int8", "model_int8.onnx"),
    Form("openvino", "int8", "model_openvino_int8.xml"),
    FP32,
    Form("openvino", "fp32", FP32.file),
    Form("torch", "fp32", "model.safetensors"),
)
"""Best first, which is the order of a bundle's variants."""

EXPORTERS = {"torch": export.export_onnx, "optimum": optimum.export_onnx}
PARITY = 1e-4
POINTS = 0.5
_LIBRARIES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")
_OPENVINO = ("openvino", "nncf")

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
    engines: Sequence[str] = ("onnx",),
    exporter: str = "torch",
    measure: Measure | None = None,
) -> Path:
    """Export the model for these engines and precisions, gate it, and write `<store>/<language>/<task>/<revision>`.

    Its card has, beside its own, the scores of a revision in the store that learnt from other labels (`beside`).

    `manifest_fields` needs language, max_length, stride and pad_id and may hold any other field of the manifest but
    those that follow from the rest. `measure` sees the staged folder and its variants before the manifest is written
    and returns further fields, for example scores on test data and the benchmark. `staging` is emptied first and
    removed in the end. Raises ExportError where fp32 differs from torch by more than 1e-4 in any logit, ConfigError on
    fields that are missing. A form that loses more than 0.5 points of dev main metric against fp32 is left out; where
    none is left, fp32 on ONNX Runtime takes its place.
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
            engines=engines,
            exporter=exporter,
        )
        fields = {**manifest_fields, **(measure(staging, variants) if measure else {})}
        manifest = beside(_manifest(fields, task, variants, store), store)
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
    engines: Sequence[str] = ("onnx",),
    exporter: str = "torch",
) -> tuple[Variant, ...]:
    """Write the model files that pass their gates into `staging`, where the tokenizer is; best variant first."""
    wanted = forms(engines, precisions)
    if exporter not in EXPORTERS:
        raise UnknownChoice("exporter", exporter, EXPORTERS)
    tokenizer = open_tokenizer(staging)
    calibration = _batches(codec, tokenizer, task.items(list(calibration_texts)))
    if not calibration:
        raise DataError("the export needs calibration texts, and was given none that fit the model")
    EXPORTERS[exporter](model, staging / FP32.file)
    difference = parity(model, staging / FP32.file, calibration[:8])
    if difference > PARITY:
        raise ExportError(f"the exported model differs from torch by {difference:.1e} in a logit, above {PARITY:.0e}")

    def scored(form: Form) -> Variant:
        variant = Variant(name=form.name, file=form.file, engine=form.engine, precision=form.precision)
        return replace(variant, scores=_dev_scores(codec, task, tokenizer, examples_dev, staging, variant))

    reference = scored(FP32)
    kept: list[Variant] = []
    for form in wanted:
        if form == FP32:
            kept.append(reference)
            continue
        _write(form, model, staging, calibration)
        variant = scored(form)
        lost = reference.scores[task.main_metric] - variant.scores[task.main_metric]
        if lost > POINTS:
            log.warning("%s loses %.2f points of dev %s: not published", form.name, lost, task.main_metric)
        else:
            kept.append(variant)
    kept = kept or [reference]
    needed = {file for variant in kept for file in variant.files}
    for form in (*wanted, FP32):
        for file in Variant(name=form.name, file=form.file).files:
            if file not in needed:
                (staging / file).unlink(missing_ok=True)
    return tuple(kept)


def forms(engines: Sequence[str], precisions: Sequence[str]) -> list[Form]:
    """What is exported for these engines and precisions. Raises ConfigError for one there is none of."""
    for what, names in (("engine", engines), ("precision", precisions)):
        choices = sorted({str(getattr(form, what)) for form in FORMS})
        for name in names:
            if name not in choices:
                raise UnknownChoice(what, name, choices)
    forms = [form for form in FORMS if form.engine in engines and form.precision in precisions]
    if not forms:
        raise ConfigError(f"no model is written in {', '.join(precisions)} for {', '.join(engines)}")
    return forms


def require(engines: Sequence[str], exporter: str, codecs: Collection[str]) -> None:
    """Raises MissingExtra where what writes for these engines, or the exporter, is not installed.

    Raises ConfigError where the exporter cannot write a model of one of the `codecs`.
    """
    if exporter == "optimum" and "dependency_parsing" in codecs:
        raise ConfigError(optimum.NO_PARSER)
    if "openvino" in engines:
        openvino.require()
    if exporter == "optimum":
        optimum.installed()


def _write(form: Form, model: PreTrainedModel, staging: Path, calibration: Sequence[Tensors]) -> None:
    """The form's files, out of the fp32 export; OpenVINO reads that one itself."""
    if form.engine == "torch":
        with tempfile.TemporaryDirectory(prefix="bistil-torch-") as folder:
            model.save_pretrained(folder, max_shard_size="1TB")
            shutil.copyfile(Path(folder) / form.file, staging / form.file)
    elif form.precision == "int8":
        quantizers = {"onnx": quantize, "openvino": openvino.quantize}
        quantizers[form.engine](staging / FP32.file, staging / form.file, calibration=calibration)


def _dev_scores(
    codec: Task[Any, Any],
    task: TrainingTask,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    staging: Path,
    variant: Variant,
) -> dict[str, float]:
    predictor = Predictor(codec, tokenizer, open_engine(staging, variant), pad_id=codec.pad_id)  # type: ignore[attr-defined]
    scores = evaluate(predictor, task, examples, progress=False)
    predictor.close()
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
    libraries = (*_LIBRARIES, *(_OPENVINO if any(variant.file.endswith(".xml") for variant in variants) else ()))
    return Manifest(
        **{
            "versions": {name: version(name) for name in libraries},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
            "task": task.name,
            "codec": task.codec,
            "labels": task.labels,
            "variants": variants,
            "revision": fields.get("revision") or next_revision(store, str(fields["language"]), task.name),
        }
    )
