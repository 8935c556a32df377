"""A batcher before an engine that can be held, and small rows for it."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from app.batching import Batcher
from app.rows import Row, Tensors
from tests.app.tiny import FakeEngine
from tests.patience import PATIENCE_S


def row(*ids: int) -> Row:
    n = len(ids)
    return Row(ids=np.array(ids), type_ids=np.zeros(n, np.int64), words=np.full(n, -1), spans=np.full((n, 2), -1))


def twice(inputs: Tensors) -> Tensors:
    return {"logits": inputs["input_ids"].astype(np.float64) * 2}


class Gate:
    """An engine function that waits until it is opened; ``entered`` is set when a batch is inside."""

    def __init__(self, function: Callable[[Tensors], Tensors] = twice) -> None:
        self.function = function
        self.opened = threading.Event()
        self.entered = threading.Event()

    def __call__(self, inputs: Tensors) -> Tensors:
        self.entered.set()
        assert self.opened.wait(PATIENCE_S)
        return self.function(inputs)


def batcher(engine: FakeEngine, **options: Any) -> Batcher:
    return Batcher(engine, pad_id=0, per_token=True, **options)


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, PATIENCE_S)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def held(queue: Batcher, gate: Gate) -> "asyncio.Task[list[Tensors]]":
    """A task whose batch is in the engine, which stays there until the gate opens."""
    first = asyncio.create_task(queue.submit([row(1)]))
    await entered(gate)
    return first
