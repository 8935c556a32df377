"""Text without labels for phase 2, which the task teacher labels; of any language, the target's above all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from app.predictor import Predictor
from app.text import sentences, words
from distill.corpus import lines
from distill.evaluate import predictions
from distill.examples import TaskBatches
from distill.tasks.base import Batch, Example, TrainingTask

_SHORTEST = 4


def sample(folders: Sequence[Path], language: str, count: int) -> list[str]:
    """At most `count` sentences of four words or more, from lines at even distances, from the first line on.

    Where these do not give as many, the lines between them do, in their order.
    """
    total = sum(1 for _ in lines(folders, language))
    step, each = max(1, total // max(1, count)), -(-count // total)
    found: list[str] = []
    for between in (False, True):
        for place, line in enumerate(lines(folders, language)):
            if (place % step != 0) == between:
                spans = words(line)
                long = [part for part in sentences(line, spans) if part[1] - part[0] >= _SHORTEST]
                found += [line[spans[first][0] : spans[last - 1][1]] for first, last in long[:each]]
            if len(found) >= count:
                return found[:count]
    return found


def label(teacher: Predictor[Any, Any], task: TrainingTask, texts: Sequence[str]) -> list[Example]:
    """The texts as examples of the task with the teacher's answers as gold; what is too long for it is left out."""
    items = task.items(texts)
    answers = predictions(teacher, [Example(item, None) for item in items], progress=False)
    pairs = zip(items, answers, strict=True)
    return [Example(item, task.as_gold(answer)) for item, answer in pairs if answer is not None]


class Interleaved:
    """Micro-batches of `labelled`, and in the place of `share` of them, at even distances, those of `unlabelled`.

    An epoch has as many micro-batches as one of `labelled`: the share changes what is read, not how much.
    """

    def __init__(self, labelled: TaskBatches, unlabelled: TaskBatches, *, share: float) -> None:
        if not 0 < share < 1:
            raise ConfigError(f"unlabelled_share = {share}: choose a share of the micro-batches above 0 and below 1")
        self.labelled, self.unlabelled, self.share = labelled, unlabelled, share

    @property
    def per_epoch(self) -> int:
        return self.labelled.per_epoch

    def __call__(self, index: int) -> Batch:
        before = int(self.share * index)
        if int(self.share * (index + 1)) > before:
            return self.unlabelled(before)
        return self.labelled(index - before)
