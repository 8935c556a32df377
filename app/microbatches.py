"""Micro-batches: what one costs an engine, and how waiting rows are cut into the cheapest ones."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from app.rows import Row, Tensors, pad

# a micro-batch stops growing where its fixed cost is below this share of it: more rows would only make callers wait
_PLATEAU = 0.02
_REPEATS = 20
_REPEAT_WITHIN_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a micro-batch costs: ``per_batch + rows * (per_token * longest + per_square * longest ** 2)``, in seconds.

    For cutting, only the ratios matter. The default is a guess for when nothing was measured: a call costs as much as
    32 tokens.
    """

    per_batch: float = 32.0
    per_token: float = 1.0
    per_square: float = 0.0

    def row(self, longest: int) -> float:
        """What one more row of this padded length adds."""
        return self.per_token * longest + self.per_square * longest * longest

    def of(self, n_rows: int, longest: int) -> float:
        """The cost of a whole micro-batch."""
        return self.per_batch + n_rows * self.row(longest)

    def max_rows(self, longest: int, *, token_budget: int) -> int:
        """The rows of this padded length that may go together; at least one."""
        within_budget = token_budget // longest
        if self.row(longest) > 0:
            to_plateau = self.per_batch * (1 / _PLATEAU - 1) / self.row(longest)
            within_budget = min(within_budget, int(to_plateau))
        return max(within_budget, 1)


def cut(lengths: Sequence[int], *, cost: Cost, token_budget: int) -> list[list[int]]:
    """Indices of rows of these lengths, grouped into the micro-batches that cost least together.

    Rows are sorted by length, so that a micro-batch is a stretch of like rows, and dynamic programming finds the cuts:
    ``best[end] = min over start of best[start] + cost of rows start to end``. Every micro-batch holds
    ``rows * longest <= token_budget``; a row above the budget goes alone.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    best, begins = [0.0], [0]
    for end, index in enumerate(order, start=1):
        longest = max(lengths[index], 1)
        row = cost.row(longest)
        first = max(end - cost.max_rows(longest, token_budget=token_budget), 0)
        cheapest, begin = min((best[start] + (end - start) * row, start) for start in range(first, end))
        best.append(cheapest + cost.per_batch)
        begins.append(begin)
    batches = []
    end = len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]


def in_two(batch: Sequence[int], lengths: Sequence[int], *, cost: Cost) -> list[list[int]]:
    """A micro-batch, sorted by length and of at least two rows, as two that take about as long as each other."""

    def longer(at: int) -> float:
        return max(cost.of(at, lengths[batch[at - 1]]), cost.of(len(batch) - at, lengths[batch[-1]]))

    middle = min(range(1, len(batch)), key=longer)
    return [list(batch[:middle]), list(batch[middle:])]


def measure(
    run: Callable[[Tensors], Tensors],
    *,
    pad_id: int,
    max_length: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Time an engine on a few shapes and fit its cost; the first call of a shape, which may allocate, is not timed.

    Other work on the machine can only slow a call down, so that the fastest of a shape's repeats counts.
    """
    shapes = {(n_rows, min(length, max_length)) for n_rows, length in ((1, 8), (1, 32), (1, 128), (8, 16), (8, 64))}
    shapes |= {(2, max_length)}
    return fit({shape: _fastest(run, _filled(*shape, pad_id=pad_id), clock) for shape in sorted(shapes)})


def fit(seconds: dict[tuple[int, int], float]) -> Cost:
    """The cost, with no negative part, that predicts the seconds of (rows, longest) with least squared relative error.

    Three parts have seven sets of positive ones; each is solved, and the best that stays positive is taken.
    """
    measured = np.array(list(seconds.values()))
    columns = np.array([(1, n_rows * longest, n_rows * longest**2) for n_rows, longest in seconds], dtype=np.float64)
    relative = columns / measured[:, np.newaxis]
    found, least = np.zeros(3), np.inf
    for size in (1, 2, 3):
        for chosen in combinations(range(3), size):
            parts = np.zeros(3)
            parts[list(chosen)] = np.linalg.lstsq(relative[:, chosen], np.ones(len(measured)), rcond=None)[0]
            error = float(np.square(relative @ parts - 1).sum())
            if (parts >= 0).all() and error < least:
                found, least = parts, error
    return Cost(per_batch=float(found[0]), per_token=float(found[1]), per_square=float(found[2]))


def _fastest(run: Callable[[Tensors], Tensors], inputs: Tensors, clock: Callable[[], float]) -> float:
    run(inputs)
    fastest, begun = np.inf, clock()
    for _ in range(_REPEATS):
        started = clock()
        run(inputs)
        fastest = min(fastest, clock() - started)
        if clock() - begun > _REPEAT_WITHIN_S:
            break
    return float(fastest)


def _filled(n_rows: int, length: int, *, pad_id: int) -> Tensors:
    ids = np.full(length, pad_id, dtype=np.int64)
    nothing = np.zeros(length, dtype=np.int64)
    row = Row(ids=ids, type_ids=nothing, words=nothing, spans=np.stack([nothing, nothing], axis=1))
    return {**pad([row] * n_rows, pad_id=pad_id)}
