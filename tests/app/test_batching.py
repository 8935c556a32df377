"""What runs together, in which order, and what comes back."""

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

from app.batching import Batcher, BatchStats
from app.errors import DeadlineExceeded, Overloaded
from app.rows import Tensors
from app.rows import pad as rows_pad
from app.timing import Timing
from tests.app.gate import Gate, batcher, entered, held, row, settle, twice
from tests.app.tiny import FakeEngine
from tests.patience import PATIENCE_S


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
        assert runs.stages["forward"] >= opened - inside and waits.stages["queue"] >= opened - queued
        assert 0 <= runs.stages["queue"] <= inside - begun and 0 < waits.stages["forward"] <= done - opened

    asyncio.run(scenario())


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


def test_the_stages_of_many_batches_add_up_to_the_time_they_took() -> None:
    def slow(inputs: Tensors) -> Tensors:
        time.sleep(0.01)
        return twice(inputs)

    async def scenario(*, streams: int) -> tuple[Timing, float]:
        engine = FakeEngine(slow, streams=streams)
        queue, timing = batcher(engine, streams=engine if streams > 1 else None, token_budget=4), Timing()
        begun = time.perf_counter()
        await queue.submit([row(1, 2) for _ in range(20)], timing=timing)
        took = time.perf_counter() - begun
        await queue.close()
        assert len(engine.batches) >= 10
        return timing, took

    for streams in (1, 2):
        timing, took = asyncio.run(scenario(streams=streams))
        assert sum(timing.stages.values()) <= took
        # nobody else is there: whatever was not its first batch's way to the engine, it ran
        assert timing.stages["forward"] > 0.01 * 10 / streams > timing.stages["queue"] >= 0


def test_a_wait_that_ended_without_an_answer_is_told() -> None:
    gate = Gate()

    async def scenario() -> Timing:
        queue, timing = batcher(FakeEngine(gate)), Timing()
        first = asyncio.create_task(queue.submit([row(1)]))
        await entered(gate)
        with pytest.raises(DeadlineExceeded):
            await queue.submit([row(2)], timing=timing, timeout_s=0.02)
        gate.opened.set()
        await first
        await queue.close()
        return timing

    stages = asyncio.run(scenario()).stages
    assert list(stages) == ["queue"] and stages["queue"] >= 0.02


def test_what_was_refused_has_not_waited() -> None:
    gate = Gate()

    async def scenario() -> Timing:
        queue, timing = batcher(FakeEngine(gate), max_queue_tokens=1), Timing()
        tasks = [asyncio.create_task(queue.submit([row(1)]))]
        await entered(gate)
        tasks.append(asyncio.create_task(queue.submit([row(2)])))
        await settle()
        with pytest.raises(Overloaded):
            await queue.submit([row(3)], timing=timing)
        gate.opened.set()
        await asyncio.gather(*tasks)
        await queue.close()
        return timing

    assert asyncio.run(scenario()).stages == {}
