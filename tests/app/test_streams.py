"""Two calls at once where several rows wait, all threads for one that is alone."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from app.batching import Batcher, BatchStats
from app.microbatches import Cost, in_two
from app.rows import Tensors
from app.timing import Timing
from tests.app.gate import Gate, entered, row, settle, twice
from tests.app.tiny import FakeEngine
from tests.patience import PATIENCE_S


class Meeting:
    """An engine function that ends only when as many calls are inside as it has places."""

    def __init__(self, places: int) -> None:
        self._barrier = threading.Barrier(places)

    def __call__(self, inputs: Tensors) -> Tensors:
        self._barrier.wait(PATIENCE_S)
        return twice(inputs)


def batcher(whole: Any, streams: Any, **options: Any) -> Batcher:
    return Batcher(FakeEngine(whole), streams=FakeEngine(streams, streams=2), pad_id=0, per_token=True, **options)


def shapes(queue: Batcher) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    assert isinstance(queue.engine, FakeEngine) and isinstance(queue.streams, FakeEngine)
    return queue.engine.batches, queue.streams.batches


def test_a_row_that_comes_alone_has_all_threads() -> None:
    async def scenario() -> Batcher:
        queue = batcher(twice, twice)
        for length in (1, 2, 3):
            await queue.submit([row(*range(length))])
        await queue.close()
        return queue

    assert shapes(asyncio.run(scenario())) == ([(1, 1), (1, 2), (1, 3)], [])


def test_rows_that_come_together_run_at_once() -> None:
    async def scenario() -> tuple[Batcher, list[list[float]]]:
        queue = batcher(twice, Meeting(2))
        outputs = await queue.submit([row(1, 2), row(3)])
        await queue.close()
        return queue, [output["logits"].tolist() for output in outputs]

    queue, answers = asyncio.run(scenario())
    assert answers == [[2, 4], [6]]
    assert shapes(queue)[0] == [] and sorted(shapes(queue)[1]) == [(1, 1), (1, 2)]


def test_nothing_runs_beside_a_row_that_has_all_threads_and_what_came_meanwhile_runs_at_once() -> None:
    gate = Gate()

    async def scenario() -> Batcher:
        queue = batcher(gate, Meeting(2))
        first = asyncio.create_task(queue.submit([row(1)]))
        await entered(gate)
        rest = [asyncio.create_task(queue.submit([row(2)])) for _ in range(2)]
        await settle()
        await asyncio.sleep(0.02)
        assert queue.n_waiting == 2 and shapes(queue)[1] == []
        gate.opened.set()
        await asyncio.gather(first, *rest)
        await queue.close()
        return queue

    assert shapes(asyncio.run(scenario())) == ([(1, 1)], [(1, 1), (1, 1)])


def test_a_row_that_comes_while_one_stream_runs_starts_on_the_other() -> None:
    gate = Gate()

    def streams(inputs: Tensors) -> Tensors:
        return twice(inputs) if inputs["input_ids"][0, 0] == 9 else gate(inputs)

    async def scenario() -> None:
        engine = FakeEngine(streams, streams=2)
        queue = Batcher(engine, streams=engine, pad_id=0, per_token=True)
        first = asyncio.create_task(queue.submit([row(1)]))
        await entered(gate)
        late = asyncio.create_task(queue.submit([row(9)]))
        assert (await late)[0]["logits"].tolist() == [18] and not first.done()
        assert queue.busy_s > 0
        gate.opened.set()
        await first
        assert queue.busy_s == 0
        await queue.close()

    asyncio.run(scenario())


def test_closing_answers_everything_and_closes_both_engines() -> None:
    async def scenario() -> Batcher:
        queue = batcher(twice, twice)
        tasks = [asyncio.create_task(queue.submit([row(*[1] * (1 + number % 7))])) for number in range(300)]
        await settle()
        await queue.close()
        for number, task in enumerate(tasks):
            assert (await task)[0]["logits"].tolist() == [2.0] * (1 + number % 7)
        return queue

    queue = asyncio.run(scenario())
    assert isinstance(queue.engine, FakeEngine) and queue.engine.closed
    assert isinstance(queue.streams, FakeEngine) and queue.streams.closed


def test_a_stuck_stream_is_noticed_though_the_other_goes_on() -> None:
    gate = Gate()

    def streams(inputs: Tensors) -> Tensors:
        return gate(inputs) if inputs["input_ids"][0, 0] == 1 else twice(inputs)

    async def scenario() -> None:
        queue = batcher(twice, streams, stuck_after_s=0.05)
        stuck = asyncio.create_task(queue.submit([row(1), row(1, 1)]))
        await entered(gate)
        await asyncio.sleep(0.1)
        healthy = [queue.alive]
        assert queue.busy_s > 0.05
        gate.opened.set()
        await stuck
        healthy.append(queue.alive)
        assert healthy == [False, True]
        await queue.close()

    asyncio.run(scenario())


def test_a_stream_s_seconds_count_by_its_share_of_the_threads() -> None:
    stats: list[BatchStats] = []

    async def scenario() -> Timing:
        queue, timing = batcher(twice, Meeting(2), on_batch=stats.append), Timing()
        await queue.submit([row(1, 2), row(3, 4)], timing=timing)
        await settle()
        await queue.close()
        return timing

    timing = asyncio.run(scenario())
    assert len(stats) == 2  # the two met in the engine: in that time both ran, each on half of the threads
    assert (
        max(batch.engine_s for batch in stats) < timing.stages["forward"] <= 2 * sum(batch.engine_s for batch in stats)
    )


def test_an_error_in_one_stream_is_that_batch_s_alone() -> None:
    def streams(inputs: Tensors) -> Tensors:
        if inputs["input_ids"].shape[1] == 2:
            raise ValueError("no")
        return twice(inputs)

    async def scenario() -> tuple[Any, Any]:
        queue = batcher(twice, streams)
        gathered = await asyncio.gather(queue.submit([row(1, 2)]), queue.submit([row(3)]), return_exceptions=True)
        await queue.close()
        return gathered[0], gathered[1]

    failed, answered = asyncio.run(scenario())
    assert isinstance(failed, Exception) and answered[0]["logits"].tolist() == [6]


@pytest.mark.parametrize("n_rows", [2, 3, 9, 40])
def test_a_batch_is_cut_in_two_where_the_dearer_part_is_cheapest(n_rows: int) -> None:
    lengths = np.random.default_rng(n_rows).integers(1, 128, size=n_rows).tolist()
    order = sorted(range(n_rows), key=lengths.__getitem__)
    cost = Cost(per_batch=30.0, per_token=1.0, per_square=0.001)
    one, other = in_two(order, lengths, cost=cost)
    assert one + other == order and one and other

    def dearer(at: int) -> float:
        parts = order[:at], order[at:]
        return max(cost.of(len(part), max(lengths[index] for index in part)) for part in parts)

    assert dearer(len(one)) == min(dearer(at) for at in range(1, n_rows))
