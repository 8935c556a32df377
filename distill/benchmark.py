"""Student against teacher in one run: interleaved, so that a busy machine slows both."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from app.engines.base import Engine
from app.errors import DataError
from app.rows import Tensors


def compare(
    teacher: Engine,
    student: Engine,
    batches: Sequence[Tensors],
    *,
    rounds: int,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """How many times faster the student answers the same batches.

    Each round runs each batch on both, who goes first alternating. `speedup` is the geometric mean of teacher time /
    student time over all pairs; `low` and `high` bound what other texts of the kind would give, in this run: the 95 %
    bootstrap interval over the batches, each with the mean of its rounds. `teacher_ms`, `student_ms` are medians.
    """
    if not batches or rounds < 1:
        raise DataError("a benchmark needs at least one batch and one round")
    for tensors in batches:
        teacher.run(tensors)
        student.run(tensors)
    times = np.empty((rounds, len(batches), 2))
    for turn in range(rounds):
        for place, tensors in enumerate(batches):
            order = (0, 1) if (turn + place) % 2 == 0 else (1, 0)
            for which in order:
                start = clock()
                (teacher, student)[which].run(tensors)
                times[turn, place, which] = clock() - start
    ratios = np.log(times[..., 0] / times[..., 1]).mean(axis=0)
    draws = np.random.default_rng(seed).integers(len(ratios), size=(1000, len(ratios)))
    low, high = np.percentile(ratios[draws].mean(axis=1), [2.5, 97.5])
    return {
        "speedup": float(np.exp(ratios.mean())),
        "low": float(np.exp(low)),
        "high": float(np.exp(high)),
        "teacher_ms": 1000 * float(np.median(times[..., 0])),
        "student_ms": 1000 * float(np.median(times[..., 1])),
        "rounds": rounds,
        "batches": len(batches),
    }
