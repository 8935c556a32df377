"""Rate: how many tokens a second an engine does, for predicting when a request would be done."""

import math

from app.microbatches import Cost

_DECAY = 0.9
_USUAL_LENGTH = 32


class Rate:
    """Tokens a second of the engine while work waits, as a decaying mean; begun at what the measured cost predicts."""

    def __init__(self, cost: Cost | None, *, token_budget: int, at_once: int) -> None:
        self._tokens, self._seconds = 0.0, 0.0
        if cost is not None:
            n_rows = cost.max_rows(_USUAL_LENGTH, token_budget=token_budget)
            self.add(n_rows * _USUAL_LENGTH, cost.of(n_rows, _USUAL_LENGTH) / at_once)

    @property
    def tokens_per_s(self) -> float:
        """Without bound as long as nothing was measured."""
        return self._tokens / self._seconds if self._seconds else math.inf

    def add(self, n_tokens: int, seconds: float) -> None:
        """Count one batch."""
        self._tokens = _DECAY * self._tokens + n_tokens
        self._seconds = _DECAY * self._seconds + seconds
