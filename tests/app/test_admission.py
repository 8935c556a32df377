"""Who may wait before an engine, and who leaves the queue without an answer."""

import asyncio

import pytest

from app.errors import DeadlineExceeded, NotReady, Overloaded
from app.microbatches import Cost
from app.rows import Tensors
from tests.app.gate import Gate, batcher, entered, held, row, settle, twice
from tests.app.tiny import FakeEngine


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
