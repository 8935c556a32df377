"""The bootstrap over test items (Efron 1979; Koehn 2004 for pairs): what a score might be on other items like these."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A figure, and what it is on each of n resamples of the items.

    Differences and shares of two are paired: their resamples hold the same items. Shape: draws (n,).
    """

    value: float
    draws: np.ndarray

    @classmethod
    def of(cls, terms: np.ndarray, weights: np.ndarray) -> "Resampled":
        """The mean over runs of a metric that is 100 * sum(numerators) / sum(denominators) over items.

        Shape: terms (runs, items, 2), as `TrainingTask.terms` gives them a run; weights (n, items), from `resample`.
        """
        ratios = [_scores(run, np.vstack([np.ones(len(run)), weights])) for run in terms]
        value, *draws = np.mean(ratios, axis=0)
        return cls(value=float(value), draws=np.asarray(draws))

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(value=self.value - other.value, draws=self.draws - other.draws)

    def share_of(self, other: "Resampled") -> "Resampled | None":
        """In percent of `other`, over the resamples in which that is above 0; None where it is 0 itself."""
        some = other.draws > 0
        if other.value <= 0 or not some.any():
            return None
        return Resampled(value=100 * self.value / other.value, draws=100 * self.draws[some] / other.draws[some])

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % percentile interval."""
        low, high = np.percentile(self.draws, [2.5, 97.5])
        return float(low), float(high)


def resample(n_items: int, *, seed: int, n: int = 1000) -> np.ndarray:
    """How often each item is in each of n samples with replacement. Shape: (n, items)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_items, np.full(n_items, 1 / n_items), size=n).astype(np.float64)


def _scores(terms: np.ndarray, weights: np.ndarray) -> np.ndarray:
    sums = weights @ terms
    return np.asarray(100 * sums[:, 0] / np.maximum(sums[:, 1], 1e-12))
