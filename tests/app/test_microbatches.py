from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest

from app.microbatches import Cost, cut, fit, measure
from app.rows import Tensors

# a 6 x 768 student in static int8 on two cores, about
STUDENT = Cost(per_batch=1e-3, per_token=7e-5, per_square=5e-8)


def total(batches: Sequence[Sequence[int]], lengths: Sequence[int], cost: Cost) -> float:
    return sum(cost.of(len(batch), max(lengths[index] for index in batch)) for batch in batches)


def cheapest(lengths: Sequence[int], cost: Cost, *, token_budget: int) -> float:
    """By trying every way to cut the sorted rows."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    least = float("inf")
    for n_cuts in range(len(order)):
        for cuts in combinations(range(1, len(order)), n_cuts):
            edges = [0, *cuts, len(order)]
            batches = [order[start:end] for start, end in pairwise(edges)]
            longest = [max(lengths[index] for index in batch) for batch in batches]
            if all(
                len(batch) <= cost.max_rows(length, token_budget=token_budget)
                for batch, length in zip(batches, longest, strict=True)
            ):
                least = min(least, total(batches, lengths, cost))
    return least


@pytest.mark.parametrize("seed", range(8))
def test_no_other_cut_of_the_sorted_rows_costs_less(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 120, size=9).tolist()
    cost = Cost(per_batch=float(generator.integers(1, 60)), per_token=1.0, per_square=0.01)
    batches = cut(lengths, cost=cost, token_budget=256)
    assert total(batches, lengths, cost) == pytest.approx(cheapest(lengths, cost, token_budget=256))


def test_like_rows_go_together_and_a_long_one_alone() -> None:
    assert cut([5, 100, 6, 5, 7], cost=Cost(per_batch=16), token_budget=4096) == [[0, 3, 2, 4], [1]]


def test_a_row_above_the_budget_goes_alone_and_nothing_is_nothing() -> None:
    assert cut([100, 3, 3], cost=Cost(), token_budget=50) == [[1, 2], [0]]
    assert cut([], cost=Cost(), token_budget=50) == []


@pytest.mark.parametrize("seed", range(10))
def test_every_row_is_in_one_batch_within_the_budget(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 200, size=generator.integers(1, 60)).tolist()
    batches = cut(lengths, cost=STUDENT, token_budget=512)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 512 for batch in batches)


def test_padding_stays_near_a_tenth_on_a_realistic_mix_of_lengths() -> None:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(mean=np.log(25) - 0.32, sigma=0.8, size=64 * 40), 3, 256).astype(int)
    padded = 0
    for waiting in lengths.reshape(40, 64):
        batches = cut(waiting.tolist(), cost=STUDENT, token_budget=4096)
        padded += sum(len(batch) * int(waiting[batch].max()) for batch in batches)
        assert len(batches) < 40
    assert 1.0 < padded / lengths.sum() < 1.15
    by_arrival = sum(32 * int(batch.max()) for batch in lengths.reshape(-1, 32))
    assert by_arrival / lengths.sum() > 3


def test_a_batch_stops_growing_where_its_fixed_cost_no_longer_matters() -> None:
    cost = Cost(per_batch=10, per_token=1.0)
    n_rows = cost.max_rows(7, token_budget=10**6)
    assert cost.per_batch / cost.of(n_rows, 7) >= 0.02 > cost.per_batch / cost.of(n_rows + 1, 7)
    assert Cost(per_batch=10, per_token=0).max_rows(7, token_budget=70) == 10


def test_fit_finds_the_cost_behind_exact_times() -> None:
    seconds = {(n_rows, length): STUDENT.of(n_rows, length) for n_rows, length in ((1, 8), (8, 16), (8, 64), (2, 256))}
    fitted = fit(seconds)
    assert fitted.per_batch == pytest.approx(STUDENT.per_batch)
    assert fitted.per_token == pytest.approx(STUDENT.per_token)
    assert fitted.per_square == pytest.approx(STUDENT.per_square)


@pytest.mark.parametrize("seed", range(10))
def test_fit_has_no_negative_part_however_odd_the_times(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shapes = ((1, 8), (1, 32), (1, 128), (8, 16), (8, 64), (2, 128))
    fitted = fit({shape: float(generator.uniform(1e-4, 1e-2)) for shape in shapes})
    assert min(fitted.per_batch, fitted.per_token, fitted.per_square) >= 0
    assert fitted.of(4, 32) > 0


def test_measure_times_the_engine_it_is_given_within_its_longest_row() -> None:
    shapes: list[tuple[int, ...]] = []
    now = 0.0

    def run(inputs: Tensors) -> Tensors:
        nonlocal now
        assert inputs["attention_mask"].all()
        shapes.append(inputs["input_ids"].shape)
        n_before = shapes.count(shapes[-1]) - 1
        now += 1e-3 + 2e-6 * inputs["input_ids"].size + (5.0 if n_before == 0 else 1e-4 if n_before == 1 else 0.0)
        return {}

    cost = measure(run, pad_id=1, max_length=64, clock=lambda: now)
    assert max(length for _, length in shapes) == 64
    # neither the first call, of 5 s, nor the second, which something else held up, but the fastest
    assert (cost.per_batch, cost.per_token, cost.per_square) == pytest.approx((1e-3, 2e-6, 0), abs=1e-12)
