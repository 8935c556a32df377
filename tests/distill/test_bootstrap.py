import numpy as np
import pytest

from distill.bootstrap import Resampled, resample


def test_each_resample_has_as_many_items_as_the_test_set() -> None:
    weights = resample(50, seed=1, n=7)
    assert weights.shape == (7, 50) and (weights.sum(axis=1) == 50).all()
    assert np.array_equal(weights, resample(50, seed=1, n=7)) and not np.array_equal(weights, resample(50, seed=2, n=7))


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    hits = np.random.default_rng(0).random(2000) < 0.7
    terms = np.stack([hits, np.ones(2000)], axis=1)[None]
    score = Resampled.of(terms, resample(2000, seed=0, n=4000))
    low, high = score.interval
    error = 100 * float(np.sqrt(hits.mean() * (1 - hits.mean()) / 2000))
    assert score.value == pytest.approx(100 * hits.mean())
    assert low == pytest.approx(score.value - 1.96 * error, abs=0.2)
    assert high == pytest.approx(score.value + 1.96 * error, abs=0.2)


def test_runs_are_averaged_after_the_metric_of_each() -> None:
    runs = np.asarray([[[1.0, 1.0], [0.0, 3.0]], [[1.0, 2.0], [1.0, 2.0]]])
    assert Resampled.of(runs, resample(2, seed=0)).value == pytest.approx((25 + 50) / 2)


def test_pairs_that_differ_on_few_items_have_a_narrow_difference() -> None:
    generator = np.random.default_rng(0)
    hits = generator.random(400) < 0.5
    better = hits.copy()
    better[np.flatnonzero(~hits)[:12]] = True
    weights = resample(400, seed=0)
    one, other = (Resampled.of(np.stack([h, np.ones(400)], axis=1)[None], weights) for h in (better, hits))
    low, high = (one - other).interval
    assert (one - other).value == pytest.approx(3.0) and 1.0 < low < high < 5.0
    assert high - low < (one.interval[1] - one.interval[0]) / 2
    share, same = one.share_of(other), one.share_of(one)
    assert share is not None and share.value == pytest.approx(100 * one.value / other.value)
    assert same is not None and same.interval == (100.0, 100.0)


def of_hits(hits: list[int], weights: np.ndarray) -> Resampled:
    return Resampled.of(np.stack([hits, np.ones(len(hits))], axis=1)[None], weights)


def test_nothing_is_a_share_of_zero() -> None:
    weights = resample(20, seed=0)
    assert of_hits([1] * 20, weights).share_of(of_hits([0] * 20, weights)) is None


def test_a_share_s_interval_leaves_out_the_resamples_in_which_there_is_nothing_to_keep() -> None:
    weights = resample(20, seed=0)
    student, teacher = of_hits([1, 0] + [0] * 18, weights), of_hits([0, 1] + [0] * 18, weights)
    assert (teacher.draws == 0).any()
    share = student.share_of(teacher)
    assert share is not None and share.value == pytest.approx(100.0)
    some = weights[:, 1] > 0
    assert share.draws == pytest.approx(100 * weights[some, 0] / weights[some, 1])
