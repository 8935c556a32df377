"""What an estimate is made of, each measured once: times on this machine, and counts in a sample of the data."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import psutil
from tokenizers import Tokenizer
from transformers import AutoConfig, PreTrainedConfig

from app.errors import InputTooLong
from distill import datasets
from distill.corpus import files, lines
from distill.speed import Model, Speed, time_layer
from distill.tasks.base import Example, training_task
from distill.teach import Tuning, thin
from distill.teacher import load_tokenizer

XZ_RATIO = 4  # text is to its xz file about as this to 1
_SAMPLED_TEXTS = 500
_SAMPLED_EXAMPLES = 200

Clock = Callable[[PreTrainedConfig, int, int, bool], Speed]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Tokenising text once: the seconds, and about how many lines and tokens it has."""

    seconds: float
    lines: float
    tokens: float


class Measurements:
    """Shared by the estimates of one command. `clock` times one layer of a shape on a micro-batch."""

    def __init__(self, clock: Clock = time_layer) -> None:
        self.resident = psutil.Process().memory_info().rss
        self.tokenizer = cache(load_tokenizer)
        self.model = cache(_model)
        self.reading = cache(self._read)
        self.examples = cache(_examples)
        self._clock = clock
        self._speeds: dict[tuple[int, int, int, bool], Speed] = {}

    def speed(self, model: Model, rows: int, length: int, half: bool) -> Speed:
        """Of one of the model's layers on micro-batches of that shape."""
        key = (int(model.config.hidden_size), rows, length, half)
        if key not in self._speeds:
            self._speeds[key] = self._clock(model.config, rows, length, half)
        return self._speeds[key]

    def rows(self, task: str, examples: Sequence[Example], *, tuning: Tuning, folder: Path) -> tuple[float, int]:
        """Rows an example, and tokens a row, of a sample, under the tokenizer of the model in `folder`."""
        backend = self.tokenizer(folder).backend_tokenizer
        codec = training_task(task).codec_for(max_length=tuning.max_length, stride=tuning.stride, pad_id=0)
        lengths: list[int] = []
        for example in (sample := thin(list(examples), _SAMPLED_EXAMPLES)):
            try:
                lengths += [len(row) for row in codec.encode(example.item, backend)]
            except InputTooLong:
                continue
        return len(lengths) / max(1, len(sample)), max(1, round(sum(lengths) / max(1, len(lengths))))

    def _read(self, folder: Path, texts: tuple[Path, ...], languages: tuple[str, ...]) -> Reading:
        return read(self.tokenizer(folder).backend_tokenizer, texts, languages)


def read(tokenizer: Tokenizer, texts: Sequence[Path], languages: Sequence[str]) -> Reading:
    """What reading all text of these languages once will be, from the first lines of each."""
    took = n_lines = n_tokens = 0.0
    for language in languages:
        sample = list(islice(lines(texts, language), _SAMPLED_TEXTS))
        samples = text_bytes(texts, language) / sum(len(text.encode()) + 1 for text in sample)
        began = time.perf_counter()
        encoded = tokenizer.encode_batch_fast(sample)
        took += samples * (time.perf_counter() - began)
        n_lines += samples * len(sample)
        n_tokens += samples * sum(map(len, encoded))
    return Reading(seconds=took, lines=n_lines, tokens=n_tokens)


def text_bytes(texts: Sequence[Path], language: str) -> int:
    """About how much text a language has, unpacked."""
    return sum(path.stat().st_size * (XZ_RATIO if path.suffix == ".xz" else 1) for path in files(texts, language))


def _model(folder: Path, **changes: int) -> Model:
    return Model.of(AutoConfig.from_pretrained(folder, trust_remote_code=False), **changes)


def _examples(task: str, data: Path, languages: tuple[str, ...], split: str, limit: int) -> list[Example]:
    found: list[Example] = []
    for language in languages:
        found += thin(datasets.read(task, data, language, split).examples, limit)
    return found
