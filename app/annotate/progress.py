"""Progress: lines on stderr that say how far a job is, how fast, and how long it will take."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from app.annotate.annotator import Result
from app.annotate.output import Mark


@dataclass(slots=True, kw_only=True)
class Progress:
    """Counts this run's results; ``size`` and a mark's position are in the same unit. A line every ``every_s``."""

    size: int
    begun_at: Mark
    stream: TextIO
    every_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    n_tokens: int = 0
    engine_s: float = 0.0
    busy_s: float = 0.0
    worker_peak_bytes: int = 0
    _started: float = field(init=False)
    _said: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self._said = self.clock()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self.clock() - self._started

    def add(self, result: Result, mark: Mark) -> None:
        """Count one committed chunk, and write a line where one is due."""
        self.n_tokens += result.n_tokens
        self.engine_s += result.engine_s
        self.busy_s += result.busy_s
        self.worker_peak_bytes = max(self.worker_peak_bytes, result.peak_bytes)
        if self.clock() - self._said >= self.every_s:
            self._said = self.clock()
            print(self.line(mark), file=self.stream, flush=True)

    def line(self, mark: Mark) -> str:
        """For example ``41.5 %, 1,204,224 records, 1,187 records/s, 35,610 tokens/s, 0:23:51 left``."""
        seconds = max(self.seconds, 1e-9)
        moved = mark.position - self.begun_at.position
        left = f"{_clock((self.size - mark.position) * seconds / moved)} left" if moved else "no estimate yet"
        rate = (mark.n_records - self.begun_at.n_records) / seconds
        return (
            f"{100 * mark.position / max(self.size, 1):.1f} %, {mark.n_records:,} records, {rate:,.0f} records/s, "
            f"{self.n_tokens / seconds:,.0f} tokens/s, {left}"
        )


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
