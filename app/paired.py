"""Two engines timed on the same work, one after the other."""

import random
import time
from collections.abc import Callable, Sequence

from app.engines.base import Engine
from app.rows import Tensors

Work = tuple[Engine, Sequence[Tensors]]


def time_pair(
    first: Work, second: Work, *, order: random.Random, clock: Callable[[], float] = time.perf_counter
) -> tuple[tuple[float, float], tuple[list[Tensors], list[Tensors]]]:
    """Seconds of each engine for its batches, and the outputs of each.

    Each runs its batches once untimed before, because an engine in service is warm; whose turn comes first is drawn.
    """
    work = (first, second)
    seconds = [0.0, 0.0]
    outputs: list[list[Tensors]] = [[], []]
    for side in order.sample((0, 1), 2):
        engine, batches = work[side]
        for tensors in batches:
            engine.run(tensors)
        started = clock()
        outputs[side] = [engine.run(tensors) for tensors in batches]
        seconds[side] = clock() - started
    return (seconds[0], seconds[1]), (outputs[0], outputs[1])
