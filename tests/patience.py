"""How long tests wait for what must come about; no verdict depends on how long it takes."""

import time
from collections.abc import Callable
from functools import partial

import httpx2
import pytest

PATIENCE_S = 180.0
"""For the slowest machine with the busiest neighbours; nothing waits this long where it comes about at all."""

get = partial(httpx2.get, timeout=PATIENCE_S)
post = partial(httpx2.post, timeout=PATIENCE_S)


def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            pytest.fail("the condition did not come about")
        time.sleep(0.01)
