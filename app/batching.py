"""Batcher: an asyncio queue in front of one engine. No timer: what queued while it was busy is the next batch."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from app.engines.base import Engine
from app.errors import BistilError, EngineError, NotReady, Overloaded
from app.rows import Row, Tensors, pad, split, take

_LOG = logging.getLogger(__name__)
_RETRY_AFTER_MAX_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStats:
    """One micro-batch that ran: ``n_tokens`` without padding, ``n_padded`` with it."""

    n_rows: int
    n_tokens: int
    n_padded: int
    forward_s: float


@dataclass(slots=True)
class Timing:
    """Where a submission's time went: the longest wait of its rows, and the engine time of the batches they were in."""

    queue_s: float = 0.0
    forward_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    row: Row
    answer: "asyncio.Future[Tensors]"
    timing: Timing
    queued_at: float


class Batcher:
    """Runs one engine in one thread of its own, a micro-batch within the token budget at a time.

    ``max_queue_tokens`` bounds what may wait; ``on_batch`` is called on the event loop after each batch.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        pad_id: int,
        per_token: bool,
        token_budget: int = 4096,
        max_queue_tokens: int = 131072,
        on_batch: Callable[[BatchStats], None] | None = None,
    ) -> None:
        self.engine = engine
        self.token_budget = token_budget
        self.max_queue_tokens = max_queue_tokens
        self.on_batch = on_batch
        self._pad_id = pad_id
        self._per_token = per_token
        self._waiting: list[_Entry] = []
        self._waiting_tokens = 0
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._closing = False
        self._busy_since: float | None = None
        self._busy_tokens = 0
        self._tokens_per_s = 0.0

    @property
    def n_waiting(self) -> int:
        """Rows in the queue."""
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue, without padding."""
        return self._waiting_tokens

    @property
    def busy_s(self) -> float:
        """Seconds the batch in the engine has been there; 0 when the engine is idle."""
        return 0.0 if self._busy_since is None else time.perf_counter() - self._busy_since

    @property
    def alive(self) -> bool:
        """False when the task that feeds the engine has died, which it should never do."""
        return self._worker is None or not self._worker.done() or self._closing

    async def submit(self, rows: Sequence[Row], *, timing: Timing | None = None) -> list[Tensors]:
        """The outputs of ``rows``, in order. Cancel the caller and rows still waiting leave the queue at once.

        :raises Overloaded: the queue is full; nothing was queued.
        :raises NotReady: the batcher is closing.
        :raises EngineError: a batch with one of the rows failed.
        """
        if self._closing:
            raise NotReady("the server is shutting down")
        if not rows:
            return []
        self._admit(sum(len(row) for row in rows))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="batcher")
        loop = asyncio.get_running_loop()
        timing = timing or Timing()
        now = time.perf_counter()
        entries = [_Entry(row, loop.create_future(), timing, now) for row in rows]
        self._keep([*self._waiting, *entries])
        self._wake.set()
        try:
            return await asyncio.gather(*(entry.answer for entry in entries))
        except BaseException:
            for entry in entries:
                entry.answer.cancel()
            self._keep([entry for entry in self._waiting if not entry.answer.done()])
            raise

    async def close(self) -> None:
        """Answer everything accepted, take nothing more, then close the engine."""
        self._closing = True
        self._wake.set()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown(wait=True)
        self.engine.close()

    def _admit(self, n_tokens: int) -> None:
        waiting = self.waiting_tokens
        if not waiting or waiting + n_tokens <= self.max_queue_tokens:
            return
        seconds = (waiting + self._busy_tokens) / self._tokens_per_s if self._tokens_per_s else 1.0
        raise Overloaded(
            f"{waiting} tokens are waiting and at most {self.max_queue_tokens} may",
            retry_after_s=min(max(math.ceil(seconds), 1), _RETRY_AFTER_MAX_S),
        )

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = self._next_batch()
                started = self._busy_since = time.perf_counter()
                self._busy_tokens = sum(len(entry.row) for entry in batch)
                try:
                    answers = await loop.run_in_executor(self._thread, self._run, [entry.row for entry in batch])
                except Exception as error:
                    _fail(batch, error)
                else:
                    self._answer(batch, answers, started=started)
                finally:
                    self._busy_since, self._busy_tokens = None, 0
            if self._closing:
                return

    def _next_batch(self) -> list[_Entry]:
        chosen = take([len(entry.row) for entry in self._waiting], token_budget=self.token_budget)
        batch = [self._waiting[index] for index in chosen]
        picked = set(chosen)
        self._keep([entry for index, entry in enumerate(self._waiting) if index not in picked])
        return batch

    def _keep(self, entries: list[_Entry]) -> None:
        self._waiting = entries
        self._waiting_tokens = sum(len(entry.row) for entry in entries)

    def _run(self, rows: list[Row]) -> list[Tensors]:
        return split(self.engine.run({**pad(rows, pad_id=self._pad_id)}), rows, per_token=self._per_token)

    def _answer(self, batch: list[_Entry], answers: list[Tensors], *, started: float) -> None:
        forward_s = time.perf_counter() - started
        rate = self._busy_tokens / max(forward_s, 1e-9)
        self._tokens_per_s = 0.9 * self._tokens_per_s + 0.1 * rate if self._tokens_per_s else rate
        timings = {id(entry.timing): entry.timing for entry in batch}
        for timing in timings.values():
            timing.forward_s += forward_s
        for entry, answer in zip(batch, answers, strict=True):
            entry.timing.queue_s = max(entry.timing.queue_s, started - entry.queued_at)
            if not entry.answer.done():
                entry.answer.set_result(answer)
        if self.on_batch is not None:
            lengths = [len(entry.row) for entry in batch]
            stats = BatchStats(
                n_rows=len(batch), n_tokens=sum(lengths), n_padded=len(batch) * max(lengths), forward_s=forward_s
            )
            try:
                self.on_batch(stats)
            except Exception:
                _LOG.exception("the batch hook failed")


def _fail(batch: list[_Entry], error: Exception) -> None:
    if not isinstance(error, BistilError):
        error = EngineError(f"the engine failed: {type(error).__name__}").with_traceback(error.__traceback__)
    for entry in batch:
        if not entry.answer.done():
            entry.answer.set_exception(error)
