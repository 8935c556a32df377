import pytest
import torch

from app.errors import ConfigError
from distill import throughput
from distill.throughput import Throughput, measure, peak_flops
from distill.training import Schedule

SMALL = Throughput(
    layers=2,
    hidden_size=32,
    heads=2,
    vocabulary=60,
    batch_size=2,
    sequence_length=16,
    matrix=64,
    schedule=Schedule(steps=3, learning_rate=1e-4, log_every=1, checkpoint_every=100),
)


def test_flops_are_those_of_the_matrix_products_worked_out_by_hand() -> None:
    # a layer and token: 4 products of 32 x 32 and 2 of 32 x 128, then 16 scores and 16 sums of 32, two flops each
    layer = 2 * (4 * 32 * 32 + 2 * 32 * 128) + 2 * (16 * 32 + 16 * 32)
    assert SMALL.flops_a_token() == pytest.approx(layer * (2 + 3 * 1))


def test_a_measurement_is_a_share_of_the_greater_of_two_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter((3.0, 10.0))
    monkeypatch.setattr(throughput, "peak_flops", lambda n, *, dtype: next(peaks))
    found = measure(SMALL)
    assert found["tokens_per_second"] > 0
    assert found["share"] == pytest.approx(found["tokens_per_second"] * SMALL.flops_a_token() / 10, rel=0.1)


def test_the_peak_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((0.5, 0.25, 1.0, 4.0))
    monkeypatch.setattr(throughput, "seconds", lambda work: next(seconds))
    assert peak_flops(8, dtype=torch.float32) == 2 * 8**3 / 0.25


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden_size = 32 is no multiple of heads = 12"):
        Throughput(hidden_size=32)
