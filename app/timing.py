"""Timing: where the time of what was queued went."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from app.rows import Row


@dataclass(slots=True)
class Timing:
    """Where a submission's time went: ``forward`` while a batch with rows of its own ran, ``queue`` while none did.

    ``stages`` are seconds, of what was queued alone, and add up to the time until the last of these batches ended;
    without ``forward`` where none has. ``batch`` are the rows of that last one, its own and others'.
    """

    stages: dict[str, float] = field(default_factory=dict)
    batch: Sequence[Row] = ()


def union(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that at least one of the spans covers."""
    total, covered = 0.0, -math.inf
    for started, ended in sorted(spans):
        total += max(ended - max(started, covered), 0.0)
        covered = max(covered, ended)
    return total
