"""What is noted about one request on its way."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trace:
    """What one request was about and where its time went, filled in on its way.

    ``stages`` are in seconds; ``n_windows`` are those that the model ran, ``n_tokens`` those that were asked of it;
    ``problem`` is the type of the problem it was answered with; ``after_reply`` is called
    when a good answer has been sent.
    """

    request_id: str
    started: float
    model: tuple[str, str] | None = None
    stages: dict[str, float] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    n_windows: int = 0
    n_tokens: int = 0
    rare_shares: list[float] = field(default_factory=list)
    problem: str = ""
    after_reply: Callable[[], None] | None = None
