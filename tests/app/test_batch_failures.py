"""What a failing engine, worker or hook does to those who wait."""

import asyncio
import threading
import time

import pytest

from app.batching import Batcher, BatchStats
from app.errors import EngineError
from app.rows import Tensors
from tests.app.gate import Gate, batcher, entered, held, row, settle, twice
from tests.app.tiny import FakeEngine
from tests.patience import until


def test_a_failure_goes_to_every_caller_of_the_batch_and_to_no_other() -> None:
    gate = Gate()

    def fail_on_13(inputs: Tensors) -> Tensors:
        if (inputs["input_ids"] == 13).any():
            raise RuntimeError("secret text of a user")
        return gate(inputs)

    async def scenario() -> list[object]:
        queue = batcher(FakeEngine(fail_on_13))
        first = asyncio.create_task(queue.submit([row(1)]))
        await entered(gate)
        doomed = [asyncio.create_task(queue.submit([row(value)])) for value in (12, 13, 14)]
        await settle()
        gate.opened.set()
        results = await asyncio.gather(first, *doomed, return_exceptions=True)
        after = await queue.submit([row(7)])
        assert queue.alive
        await queue.close()
        return [*results, after]

    first, *doomed, after = asyncio.run(scenario())
    assert isinstance(first, list)
    assert isinstance(after, list)
    assert [type(error) for error in doomed] == [EngineError] * 3
    assert all("secret" not in str(error) for error in doomed)


def test_a_failed_batch_takes_the_submissions_other_rows_out_of_the_queue() -> None:
    gate, failed = Gate(), threading.Event()

    def fail_on_13(inputs: Tensors) -> Tensors:
        gate(inputs)
        if (inputs["input_ids"] == 13).any():
            failed.set()
            raise MemoryError
        if failed.is_set():
            until(lambda: queue.n_waiting == 0)
        return twice(inputs)

    engine = FakeEngine(fail_on_13)

    queue = batcher(engine, token_budget=1)

    async def scenario() -> None:
        first = await held(queue, gate)
        doomed = asyncio.create_task(queue.submit([row(13), *(row(value) for value in range(20, 400))]))
        await settle()
        gate.opened.set()
        with pytest.raises(EngineError, match="MemoryError"):
            await doomed
        assert queue.n_waiting == 0
        await first
        await queue.close()

    asyncio.run(scenario())
    assert len(engine.batches) < 381


def test_a_worker_that_dies_answers_its_callers_and_is_no_longer_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def end(inputs: Tensors) -> Tensors:
        raise SystemExit

    async def scenario() -> None:
        queue = batcher(FakeEngine(end))
        with pytest.raises(EngineError):
            await queue.submit([row(1)])
        while queue.alive:
            await asyncio.sleep(0.001)
        await queue.close()

    asyncio.run(scenario())


def test_a_hook_that_fails_stops_nothing() -> None:
    def hook(stats: BatchStats) -> None:
        raise RuntimeError

    async def scenario() -> int:
        queue = Batcher(FakeEngine(twice), pad_id=0, per_token=True, on_batch=hook)
        await queue.submit([row(1)])
        outputs = await queue.submit([row(1)])
        await queue.close()
        return len(outputs)

    assert asyncio.run(scenario()) == 1


def test_a_batch_that_failed_has_used_the_engine_too() -> None:
    stats: list[BatchStats] = []

    def fail(inputs: Tensors) -> Tensors:
        time.sleep(0.01)
        raise RuntimeError

    async def scenario() -> None:
        queue = batcher(FakeEngine(fail), on_batch=stats.append)
        with pytest.raises(EngineError):
            await queue.submit([row(1), row(2)])
        await settle()
        await queue.close()

    asyncio.run(scenario())
    assert [batch.n_rows for batch in stats] == [2] and stats[0].engine_s >= 0.01
