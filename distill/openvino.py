"""Static int8 for OpenVINO, by NNCF: all scales are fixed on real text, and the task head stays in float."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from app.errors import MissingExtra
from app.rows import Tensors
from distill.export import ExportError
from distill.quantize import HEADS, in_modules


def require() -> None:
    """Raises MissingExtra without openvino or nncf."""
    if missing := [name for name in ("openvino", "nncf") if find_spec(name) is None]:
        raise MissingExtra(f"engines = openvino needs {' and '.join(missing)}: pip install openvino nncf")


def quantize(
    fp32_path: Path, int8_path: Path, *, calibration: Sequence[Tensors], keep_fp32: Sequence[str] = HEADS
) -> None:
    """Write the int8 form of an exported model as OpenVINO's `int8_path` (.xml) and the .bin beside it.

    `calibration` is padded batches of real text. Raises MissingExtra without openvino and nncf, ExportError where NNCF
    cannot quantise the model or cannot leave the head alone.
    """
    require()
    import nncf
    import openvino

    graph = onnx.load(fp32_path, load_external_data=False).graph
    inputs = [value.name for value in graph.input]
    kept = {name for node in graph.node if in_modules(node, keep_fp32) for name in (node.name, *node.output)}
    model = openvino.Core().read_model(str(fp32_path))
    heads = [op.get_friendly_name() for op in model.get_ops() if op.get_friendly_name() in kept]
    data = nncf.Dataset([{name: batch[name] for name in inputs} for batch in calibration])
    try:
        with _quiet():
            quantized: Any = nncf.quantize(
                model,
                data,
                subset_size=len(calibration),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(names=heads),
            )
    except (RuntimeError, nncf.ValidationError, nncf.InternalError) as error:
        raise ExportError(f"NNCF cannot quantise {fp32_path.name}: {error}") from error
    openvino.save_model(quantized, str(int8_path), compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's progress."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
