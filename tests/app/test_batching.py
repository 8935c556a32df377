import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.batching import Batcher, BatchStats, Timing
from app.errors import DeadlineExceeded, EngineError, NotReady, Overloaded
from app.microbatches import Cost
from app.rows import Row, Tensors
from app.rows import pad as rows_pad
from tests.app.tiny import FakeEngine
from tests.patience import PATIENCE_S, until


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


def test_rows_come_back_in_order_and_cut_to_length() -> None:
    async def scenario() -> list[list[float]]:
        queue = batcher(FakeEngine(twice))
        outputs = await queue.submit([row(1, 2, 3), row(4), row(5, 6)])
        await queue.close()
        return [output["logits"].tolist() for output in outputs]

    assert asyncio.run(scenario()) == [[2, 4, 6], [8], [10, 12]]


def test_what_queued_while_the_engine_was_busy_is_the_next_batch() -> None:
    gate = Gate()
    engine = FakeEngine(gate)
    stats: list[BatchStats] = []

    async def scenario() -> None:
        queue = Batcher(engine, pad_id=0, per_token=True, on_batch=stats.append)
        first = asyncio.create_task(queue.submit([row(1)]))
        await entered(gate)
        rest = [asyncio.create_task(queue.submit([row(2, index + 3)])) for index in range(5)]
        await settle()
        assert (queue.n_waiting, queue.waiting_tokens) == (5, 10)
        assert queue.busy_s > 0
        gate.opened.set()
        await asyncio.gather(first, *rest)
        assert (queue.n_waiting, queue.waiting_tokens, queue.busy_s) == (0, 0, 0)
        await queue.close()

    asyncio.run(scenario())
    assert engine.batches == [(1, 1), (5, 2)]
    assert [(batch.n_rows, batch.n_tokens, batch.n_padded) for batch in stats] == [(1, 1, 1), (5, 10, 10)]


def test_batches_keep_the_token_budget() -> None:
    engine = FakeEngine(twice)

    async def scenario() -> None:
        queue = batcher(engine, token_budget=12)
        await asyncio.gather(*(queue.submit([row(*range(1, 2 + index % 6))]) for index in range(50)))
        await queue.close()

    asyncio.run(scenario())
    assert sum(shape[0] for shape in engine.batches) == 50
    assert all(np.prod(shape) <= 12 for shape in engine.batches)


def test_an_answer_is_the_same_alone_and_in_any_batch() -> None:
    generator = np.random.default_rng(0)
    rows = [row(*generator.integers(1, 100, size=generator.integers(1, 30)).tolist()) for _ in range(60)]

    async def scenario(*, together: bool) -> list[Tensors]:
        queue = batcher(FakeEngine(twice), token_budget=128)
        if together:
            outputs = [found[0] for found in await asyncio.gather(*(queue.submit([one]) for one in rows))]
        else:
            outputs = [(await queue.submit([one]))[0] for one in rows]
        await queue.close()
        return outputs

    pairs = zip(asyncio.run(scenario(together=True)), asyncio.run(scenario(together=False)), strict=True)
    for together, alone in pairs:
        np.testing.assert_array_equal(together["logits"], alone["logits"])


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


def test_a_cancelled_caller_costs_nothing() -> None:
    gate = Gate()
    engine = FakeEngine(gate)

    async def scenario() -> None:
        queue = batcher(engine)
        first = asyncio.create_task(queue.submit([row(1)]))
        await entered(gate)
        gone = asyncio.create_task(queue.submit([row(2), row(3)]))
        stays = asyncio.create_task(queue.submit([row(4)]))
        await settle()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert (queue.n_waiting, queue.waiting_tokens) == (1, 1)
        gate.opened.set()
        await asyncio.gather(first, stays)
        await queue.close()

    asyncio.run(scenario())
    assert engine.batches == [(1, 1), (1, 1)]


def test_a_caller_cancelled_while_its_batch_runs_harms_no_neighbour() -> None:
    gate = Gate()

    async def scenario() -> list[Tensors]:
        queue = batcher(FakeEngine(gate))
        gone, stays = (asyncio.create_task(queue.submit([row(value)])) for value in (1, 2))
        await entered(gate)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        gate.opened.set()
        answer = await stays
        await queue.close()
        return answer

    assert asyncio.run(scenario())[0]["logits"].tolist() == [4]


def test_a_full_queue_answers_before_any_work() -> None:
    gate = Gate()

    async def scenario() -> Overloaded:
        queue = batcher(FakeEngine(gate), max_queue_tokens=10)
        first = asyncio.create_task(queue.submit([row(1)]))
        await entered(gate)
        waiting = [asyncio.create_task(queue.submit([row(1, 2, 3, 4)])) for _ in range(2)]
        await settle()
        with pytest.raises(Overloaded, match="8 tokens are waiting and at most 10 may") as caught:
            await queue.submit([row(1, 2, 3)])
        assert queue.n_waiting == 2
        gate.opened.set()
        await asyncio.gather(first, *waiting)
        await queue.submit([row(1, 2, 3)])
        await queue.close()
        return caught.value

    assert 1 <= asyncio.run(scenario()).retry_after_s <= 60


def test_one_request_above_the_limit_is_taken_when_nothing_waits() -> None:
    async def scenario() -> int:
        queue = batcher(FakeEngine(twice), max_queue_tokens=2)
        outputs = await queue.submit([row(1, 2, 3, 4)])
        await queue.close()
        return len(outputs)

    assert asyncio.run(scenario()) == 1


def test_close_answers_what_was_accepted_and_takes_nothing_more() -> None:
    gate = Gate()
    engine = FakeEngine(gate)

    async def scenario() -> list[list[Tensors]]:
        queue = batcher(engine, token_budget=1)
        accepted = [asyncio.create_task(queue.submit([row(value)])) for value in range(1, 6)]
        await entered(gate)
        closing = asyncio.create_task(queue.close())
        await settle()
        with pytest.raises(NotReady):
            await queue.submit([row(9)])
        gate.opened.set()
        await closing
        return await asyncio.gather(*accepted)

    answers = asyncio.run(scenario())
    assert [answer[0]["logits"].tolist() for answer in answers] == [[2], [4], [6], [8], [10]]
    assert engine.closed


def test_no_rows_are_answered_without_the_engine() -> None:
    engine = FakeEngine(twice)

    async def scenario() -> list[Tensors]:
        queue = batcher(engine)
        answer = await queue.submit([])
        await queue.close()
        return answer

    assert asyncio.run(scenario()) == []
    assert engine.batches == []


def test_timing_tells_waiting_from_running() -> None:
    gate = Gate()
    clock = time.perf_counter

    async def scenario() -> None:
        queue = batcher(FakeEngine(gate))
        runs, waits = Timing(), Timing()
        begun = clock()
        first = asyncio.create_task(queue.submit([row(1)], timing=runs))
        await entered(gate)
        inside = clock()
        second = asyncio.create_task(queue.submit([row(2)], timing=waits))
        await settle()
        queued = clock()
        await asyncio.sleep(0.02)
        opened = clock()
        gate.opened.set()
        await asyncio.gather(first, second)
        done = clock()
        await queue.close()
        # the first was in the engine from before `inside` to after `opened`, and the second came in only then
        assert runs.forward_s >= opened - inside and waits.queue_s >= opened - queued
        assert 0 <= runs.queue_s <= inside - begun and 0 < waits.forward_s <= done - opened

    asyncio.run(scenario())


async def held(queue: Batcher, gate: Gate) -> "asyncio.Task[list[Tensors]]":
    """A task whose batch is in the engine, which stays there until the gate opens."""
    first = asyncio.create_task(queue.submit([row(1)]))
    await entered(gate)
    return first


def test_nobody_is_overtaken_by_more_than_a_round() -> None:
    gate = Gate()
    ran: list[int] = []

    def note(inputs: Tensors) -> Tensors:
        ran.extend(inputs["input_ids"][:, 0].astype(int).tolist())
        return gate(inputs)

    async def scenario() -> None:
        queue = batcher(FakeEngine(note))
        first = await held(queue, gate)
        lengths = [60, *(2 + number % 3 for number in range(1, 600))]
        rest = [asyncio.create_task(queue.submit([row(*[number] * n)])) for number, n in enumerate(lengths)]
        await settle()
        gate.opened.set()
        await asyncio.gather(first, *rest)
        await queue.close()

    asyncio.run(scenario())
    order = ran[1:]
    assert sorted(order) == list(range(600))
    assert all(abs(place - number) < 256 for place, number in enumerate(order))
    assert order.index(0) < 256 <= order.index(256)


def test_one_rule_for_single_texts_lists_and_windows() -> None:
    shapes = []
    for groups in ([[4]] * 12, [[4] * 12], [[4] * 3, [4], [4] * 8]):
        gate = Gate()
        engine = FakeEngine(gate)

        async def scenario(groups: list[list[int]] = groups, gate: Gate = gate, engine: FakeEngine = engine) -> None:
            queue = batcher(engine)
            first = await held(queue, gate)
            tasks = [asyncio.create_task(queue.submit([row(*[1] * n) for n in lengths])) for lengths in groups]
            await settle()
            gate.opened.set()
            await asyncio.gather(first, *tasks)
            await queue.close()

        asyncio.run(scenario())
        shapes.append(engine.batches)
    assert shapes == [[(1, 1), (12, 4)]] * 3


def test_the_next_batch_is_made_while_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    padded = threading.Event()

    def pad(rows: Any, *, pad_id: int) -> Any:
        if any(5 in row.ids for row in rows):
            padded.set()
        return rows_pad(rows, pad_id=pad_id)

    monkeypatch.setattr("app.batching.pad", pad)

    def wait_for_the_next(inputs: Tensors) -> Tensors:
        if (inputs["input_ids"] == 4).any():
            assert padded.wait(PATIENCE_S)
        return gate(inputs)

    async def scenario() -> None:
        queue = batcher(FakeEngine(wait_for_the_next), token_budget=1)
        first = await held(queue, gate)
        rest = [asyncio.create_task(queue.submit([row(value)])) for value in (4, 5)]
        await settle()
        gate.opened.set()
        await asyncio.gather(first, *rest)
        await queue.close()

    asyncio.run(scenario())


def test_what_would_be_too_late_is_refused_before_any_work() -> None:
    gate = Gate()
    engine = FakeEngine(gate)
    cost = Cost(per_batch=0.0, per_token=10.0)  # ten seconds a token

    async def scenario() -> Overloaded:
        queue = batcher(engine, cost=cost)
        first = await held(queue, gate)
        waiting = asyncio.create_task(queue.submit([row(1, 2, 3, 4)], timeout_s=300))
        await settle()
        with pytest.raises(Overloaded, match="4 tokens are waiting, too many for an answer within 90 s") as caught:
            await queue.submit([row(1, 2, 3)], timeout_s=90)
        fits = asyncio.create_task(queue.submit([row(1, 2, 3)], timeout_s=120))
        await settle()
        gate.opened.set()
        await asyncio.gather(first, waiting, fits)
        await queue.close()
        return caught.value

    # one token is in the engine and four wait
    assert asyncio.run(scenario()).retry_after_s == 50


def test_a_deadline_that_passes_in_the_queue_costs_no_forward_pass() -> None:
    gate = Gate()
    engine = FakeEngine(gate)

    async def scenario() -> None:
        queue = batcher(engine)
        first = await held(queue, gate)
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.01 s"):
            await queue.submit([row(2, 3)], timeout_s=0.01)
        assert (queue.n_waiting, queue.waiting_tokens) == (0, 0)
        gate.opened.set()
        await first
        await queue.close()

    asyncio.run(scenario())
    assert engine.batches == [(1, 1)]


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
