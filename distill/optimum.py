"""The second exporter: optimum's, run as a command since optimum-onnx pins an older transformers than ours."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import onnx
from transformers import PreTrainedModel

from app.errors import MissingExtra
from distill.export import ExportError, output_names

COMMAND = "optimum-cli"
NO_PARSER = "optimum exports no dependency parser: use the exporter torch"


def export_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write the model as fp32 ONNX through `optimum-cli export onnx`, whichever environment that command is from.

    Raises MissingExtra where there is no such command, and ExportError for a parser, which optimum does not know, and
    with the end of the command's output where it fails.
    """
    if hasattr(model, "parser"):
        raise ExportError(NO_PARSER)
    command = installed()
    model.train(False).float().cpu()
    with tempfile.TemporaryDirectory(prefix="bistil-optimum-") as place:
        source, out = Path(place) / "model", Path(place) / "onnx"
        model.save_pretrained(source)
        arguments = ["export", "onnx", "--model", str(source), "--task", _task(model), "--framework", "pt"]
        done = subprocess.run(
            [command, *arguments, "--no-post-process", str(out)], capture_output=True, text=True, check=False
        )
        if done.returncode or not (out / "model.onnx").is_file():
            raise ExportError(f"{COMMAND} failed:\n{(done.stderr or done.stdout)[-2000:]}")
        exported = onnx.load(out / "model.onnx")
    for node in exported.graph.node:
        node.doc_string = ""
    onnx.save(exported, path)


def installed() -> str:
    """Where the command is. Raises MissingExtra where there is none."""
    command = shutil.which(COMMAND)
    if command is None:
        raise MissingExtra(
            f"there is no {COMMAND} on the PATH: install `optimum-onnx[onnxruntime]` into an environment of its own "
            "(it needs transformers below 4.58) and put that environment's bin folder on the PATH"
        )
    return command


def _task(model: PreTrainedModel) -> str:
    if output_names(model) != ["logits"]:
        return "question-answering"
    return "token-classification" if type(model).__name__.endswith("ForTokenClassification") else "text-classification"
