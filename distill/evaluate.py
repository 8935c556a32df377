"""Scores, through the code that serves: Predictor over a split, on any engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import track
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from app.errors import DataError, InputTooLong
from app.predictor import Predictor
from app.rows import Tensors
from distill.bootstrap import Resampled, resample
from distill.export import torch_outputs
from distill.tasks.base import Example, TrainingTask

_CHUNK = 256


class ModelEngine:
    """A torch model behind the engine seam, so that training scores what serving would answer."""

    streams = 1

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def run(self, inputs: Tensors) -> Tensors:
        """As any engine's; the model is put into eval mode and runs where it is."""
        return torch_outputs(self.model, inputs)

    def close(self) -> None:
        """Nothing to free: the model is the caller's."""

    @classmethod
    def open(cls, folder: Path, *, file: str, device: str = "cpu", threads: int = 0, streams: int = 1) -> "ModelEngine":
        """Not for files: wrap a loaded model instead."""
        raise NotImplementedError("wrap a loaded model: ModelEngine(model)")


def open_tokenizer(folder: Path) -> Tokenizer:
    """The folder's `tokenizer.json` as bundles read theirs. Raises DataError if there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise DataError(f"{path} is missing: only fast tokenizers can be served")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def predictor_for(
    model: PreTrainedModel, tokenizer: Tokenizer, task: TrainingTask, *, max_length: int, stride: int, pad_id: int
) -> Predictor[Any, Any]:
    """A predictor on a model that is still in training."""
    codec = task.codec_for(max_length=max_length, stride=stride, pad_id=pad_id)
    return Predictor(codec, tokenizer, ModelEngine(model), pad_id=pad_id)


def predictions(predictor: Predictor[Any, Any], examples: Sequence[Example], *, progress: bool = True) -> list[Any]:
    """One prediction an example, in order; None where the item is longer than the model can take."""
    chunks = [examples[start : start + _CHUNK] for start in range(0, len(examples), _CHUNK)]
    found: list[Any] = []
    for chunk in track(chunks, description="evaluate", disable=not progress, transient=True):
        items = [example.item for example in chunk]
        try:
            found += predictor.predict(items)
        except InputTooLong:
            found += [_one(predictor, item) for item in items]
    return found


def evaluate(
    predictor: Predictor[Any, Any], task: TrainingTask, examples: Sequence[Example], *, progress: bool = True
) -> dict[str, float]:
    """The task's metrics over the examples, in 0..100. Raises DataError where there are none."""
    if not examples:
        raise DataError("there is nothing to evaluate: no examples")
    return task.score([example.gold for example in examples], predictions(predictor, examples, progress=progress))


def judge(task: TrainingTask, examples: Sequence[Example], predictions: Sequence[Any]) -> dict[str, float]:
    """The task's metrics, and the interval of the main one as `low` and `high`, in 0..100."""
    gold = [example.gold for example in examples]
    low, high = interval(task, gold, predictions, seed=0)
    return {**task.score(gold, predictions), "low": low, "high": high}


def interval(
    task: TrainingTask, gold: Sequence[Any], predictions: Sequence[Any], *, seed: int, n: int = 200
) -> tuple[float, float]:
    """The main metric's 95 % percentile bootstrap interval over items, in 0..100."""
    terms = task.terms(gold, predictions)
    return Resampled.of(terms[None], resample(len(terms), seed=seed, n=n)).interval


def _one(predictor: Predictor[Any, Any], item: Any) -> Any:
    try:
        return predictor.predict([item])[0]
    except InputTooLong:
        return None
