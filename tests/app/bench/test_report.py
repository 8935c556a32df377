import math

import pytest

from app.bench.load import Answered
from app.bench.report import BARE, US, Cell, Ratio, cell, quotient, ratios, table


def cells(ours: float, theirs: float, bare: float) -> list[Cell]:
    return [
        Cell(contender=US, load="1", texts_per_s=1000 / ours, p50_ms=ours, overhead_ms=0.5),
        Cell(contender=US, load="64", texts_per_s=300.0, p50_ms=ours),
        Cell(contender="pipeline", load="1", texts_per_s=1000 / theirs, p50_ms=theirs),
        Cell(contender="pipeline", load="64", texts_per_s=50.0, p50_ms=1.0),
        Cell(contender=BARE, load="64", texts_per_s=bare),
    ]


def test_ratios_are_geometric_means_of_rounds_with_their_spread() -> None:
    found = {each.name: each for each in ratios([cells(2, 8, 400), cells(2, 32, 400)], [math.log(2)] * 3)}
    assert set(found) == {
        "p50, 1 client, against pipeline",
        "texts/s, 64 clients, against pipeline",
        "share of the bare engine's texts/s, 64 clients",
        "student against teacher, same engine and precision, no server (95 % interval)",
    }
    p50 = found["p50, 1 client, against pipeline"]
    assert (p50.mean, p50.low, p50.high) == pytest.approx((8, 4, 16))
    assert found["texts/s, 64 clients, against pipeline"].mean == pytest.approx(6)
    assert found["share of the bare engine's texts/s, 64 clients"].mean == pytest.approx(0.75)


def test_the_interval_of_the_same_engine_is_that_of_the_mean_logarithm() -> None:
    logarithms = [math.log(2)] * 3 + [math.log(4)]
    same = ratios([cells(1, 1, 1)], logarithms)[-1]
    assert (same.mean, same.low, same.high) == pytest.approx((2**1.25, 2 ** (1.25 - 0.49), 2 ** (1.25 + 0.49)))


def test_a_quotient_has_the_interval_of_both() -> None:
    live = Ratio(name="live", mean=2, low=2 / 2**3, high=2 * 2**3)
    offline = Ratio(name="offline", mean=4, low=4 / 2**4, high=4 * 2**4)
    found = quotient("live / offline", live, offline)
    assert (found.mean, found.low, found.high) == pytest.approx((1 / 2, 1 / 2 / 2**5, 2**5 / 2))  # 3, 4, 5


def test_overhead_is_what_the_engine_did_not_take() -> None:
    answers = [
        Answered(at=at, seconds=0.004, forward_s=forward, n_texts=2)
        for at, forward in ((0.004, 0.003), (0.008, 0.001), (0.012, 0.002))
    ]
    found = cell("us", "1", answers, seconds=0.012)
    assert (found.texts_per_s, found.p50_ms, found.overhead_ms) == pytest.approx((500, 4, 2))
    assert cell("us", "64", answers, seconds=0.012).overhead_ms is None  # with others there, it is waiting
    silent = [Answered(at=1.0, seconds=1.0, forward_s=None, n_texts=1)]
    assert cell("other", "1", silent, seconds=0.5).overhead_ms is None


def test_the_table_shows_every_ratio_and_the_median_of_the_rounds() -> None:
    rounds = [cells(2, 8, 400), cells(4, 8, 400), cells(2, 8, 400)]
    text = table(ratios(rounds, [math.log(2)] * 3), rounds)
    assert "| texts/s, 64 clients, against pipeline | 6.00 | 6.00-6.00 |" in text
    assert "| bistil-serve | 1 client | 500.00 | 2.00 | 0.50 |" in text
    assert f"| {BARE} | 64 clients | 400.00 |  |  |" in text
