"""Labelled examples as training micro-batches: a function of the seed and the micro-batch's number alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer

from app.errors import DataError, InputTooLong
from app.rows import Row
from distill.tasks.base import Batch, Example, Targets, TrainingTask, collate

_POOL = 32


@dataclass(frozen=True, kw_only=True)
class TaskBatches:
    """Rows and their targets; every epoch reads each row once, in batches of like length."""

    rows: Sequence[Row]
    targets: Sequence[Targets]
    batch_size: int
    seed: int
    pad_id: int
    _batches: dict[int, list[np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        task: TrainingTask,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        stride: int,
        pad_id: int,
        batch_size: int,
        seed: int,
    ) -> "TaskBatches":
        """Encode with the codec that serves. Raises DataError where no example fits the model."""
        codec = task.codec_for(max_length=max_length, stride=stride, pad_id=pad_id)
        rows: list[Row] = []
        targets: list[Targets] = []
        for example in examples:
            try:
                encoded = codec.encode(example.item, tokenizer)
            except InputTooLong:
                continue
            rows += encoded
            targets += task.targets(example, encoded)
        if not rows:
            raise DataError(f"no training example of {task.name} fits {max_length} tokens")
        return cls(rows=rows, targets=targets, batch_size=batch_size, seed=seed, pad_id=pad_id)

    @property
    def per_epoch(self) -> int:
        """Micro-batches in one epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __call__(self, index: int) -> Batch:
        epoch, place = divmod(index, self.per_epoch)
        if epoch not in self._batches:  # the order of one epoch is kept: it takes a second for half a million rows
            self._batches.clear()
            self._batches[epoch] = self._epoch(epoch)
        chosen = self._batches[epoch][place]
        return collate([self.rows[i] for i in chosen], [self.targets[i] for i in chosen], pad_id=self.pad_id)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.asarray([len(row) for row in self.rows])

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.rows))
        lengths = self._lengths
        pool = self.batch_size * _POOL
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[at : at + self.batch_size] for at in range(0, len(part), self.batch_size)]
        return [batches[i] for i in generator.permutation(len(batches))]
