"""Batcher: a queue in front of one model. No timer: what queued while the engine was busy is the next round."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice

from app.engines.base import Engine
from app.errors import BistilError, DeadlineExceeded, EngineError, NotReady, Overloaded
from app.microbatches import Cost, cut, in_two
from app.rate import Rate
from app.rows import Row, Tensors, pad, split
from app.timing import Timing, union

_LOG = logging.getLogger(__name__)
_RETRY_AFTER_MAX_S = 60
_ROUND_ROWS = 256
_N_WORKERS = 2
# the share of a request's time that may be spoken for: a prediction is a mean, and later rows may join its batch
_ADMIT_WITHIN = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStats:
    """One micro-batch that ran: ``n_tokens`` without padding, ``n_padded`` with it.

    ``engine_s`` are seconds of all of the model's threads: a stream's count by its share of them.
    """

    n_rows: int
    n_tokens: int
    n_padded: int
    engine_s: float


@dataclass(slots=True, eq=False)
class _Submission:
    answer: "asyncio.Future[list[Tensors]]"
    outputs: list[Tensors]
    n_left: int
    timing: Timing
    queued_at: float
    deadline: float
    alone: bool = False
    ran: list[tuple[float, float]] = field(default_factory=list)

    def leave(self) -> None:
        """Tell the timing where the time went, once the submission is answered or given up."""
        forward_s = union(self.ran)
        ended = time.perf_counter() if self.n_left else max(ended for _, ended in self.ran)
        self.timing.stages = {"queue": ended - self.queued_at - forward_s}
        if self.ran:
            self.timing.stages["forward"] = forward_s


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    row: Row
    place: int
    submission: _Submission


class Batcher:
    """Runs one model and answers on the event loop.

    When the engine is free, the rows that have waited longest, at most 256, are a round: they are cut into
    micro-batches of like length by ``cost``, which run in the order of each one's oldest row. What comes meanwhile is
    in a later round, so that a row is overtaken by no more than its own round.

    There are two workers. With ``engine`` alone they take turns: while one runs a micro-batch, the other makes the
    next. With ``streams`` each makes and runs its own, both at once; only a row that comes when nothing else is there
    runs on ``engine``, with all threads. The two may be the same engine.

    ``max_queue_tokens`` bounds what may wait, and ``stuck_after_s`` how long a batch may run while others wait;
    ``on_batch`` is called on the event loop after each batch, when its answers have left.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        pad_id: int,
        per_token: bool,
        streams: Engine | None = None,
        cost: Cost | None = None,
        token_budget: int = 4096,
        max_queue_tokens: int = 131072,
        stuck_after_s: float = 60.0,
        on_batch: Callable[[BatchStats], None] | None = None,
    ) -> None:
        self.engine = engine
        self.streams = streams
        self.cost = cost or Cost()
        self.token_budget = token_budget
        self.max_queue_tokens = max_queue_tokens
        self.stuck_after_s = stuck_after_s
        self.on_batch = on_batch
        self._pad_id = pad_id
        self._per_token = per_token
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workers: list[threading.Thread] = []
        self._ended: list[asyncio.Future[None]] = []
        self._turn = threading.Lock() if streams is None else nullcontext()
        # the condition guards everything below
        self._changed = threading.Condition()
        self._waiting: dict[_Entry, None] = {}
        self._waiting_tokens = 0
        self._round: deque[list[_Entry]] = deque()
        self._n_made = 0
        self._made_tokens = 0
        self._entered: dict[int, float] = {}
        self._n_begun = 0
        self._is_taken_whole = False
        self._wanted = False
        self._closing = False
        self._rate = Rate(cost, token_budget=token_budget, at_once=engine.streams)

    @property
    def n_waiting(self) -> int:
        """Rows in the queue."""
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue, without padding."""
        return self._waiting_tokens

    @property
    def n_begun(self) -> int:
        """Batches that have been in the engine, or are."""
        return self._n_begun

    @property
    def busy_s(self) -> float:
        """Seconds the oldest batch in the engine has been there; 0 when the engine is idle."""
        with self._changed:
            return time.perf_counter() - min(self._entered.values()) if self._entered else 0.0

    @property
    def alive(self) -> bool:
        """False when a worker has died, or a batch in the engine is stuck and other work came after it."""
        died = not self._closing and any(not worker.is_alive() for worker in self._workers)
        return not died and not (self._wanted and self.busy_s > self.stuck_after_s)

    async def submit(
        self, rows: Sequence[Row], *, timing: Timing | None = None, timeout_s: float = math.inf
    ) -> list[Tensors]:
        """The outputs of ``rows``, in order. Cancel the caller and rows still waiting leave the queue at once.

        :raises Overloaded: the queue is full, or would not be done within ``timeout_s``; nothing was queued.
        :raises DeadlineExceeded: ``timeout_s`` passed; rows still waiting have left the queue.
        :raises NotReady: the batcher is closing.
        :raises EngineError: a batch with one of the rows failed.
        """
        if self._closing:
            raise NotReady("the server is shutting down")
        if not rows:
            return []
        n_tokens = sum(len(row) for row in rows)
        self._admit(n_tokens, timeout_s=timeout_s)
        loop = self._start()
        now = time.perf_counter()
        submission = _Submission(
            answer=loop.create_future(),
            outputs=[{}] * len(rows),
            n_left=len(rows),
            timing=timing or Timing(),
            queued_at=now,
            deadline=now + timeout_s,
        )
        entries = {_Entry(row, place, submission): None for place, row in enumerate(rows)}
        with self._changed:
            submission.alone = not self._n_made and not self._waiting
            self._waiting |= entries
            self._waiting_tokens += n_tokens
            if self._n_made:
                self._wanted = True
            if self._may_plan():
                self._changed.notify()
        alarm = None if math.isinf(timeout_s) else loop.call_later(timeout_s, _expire, submission.answer, timeout_s)
        try:
            return await submission.answer
        except BaseException:
            self._forget(entries)
            raise
        finally:
            submission.leave()
            if alarm is not None:
                alarm.cancel()

    async def close(self) -> None:
        """Answer everything accepted, take nothing more, then close the engine."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._ended:
            await asyncio.wait(self._ended)  # unlike gather, leaves them be when this is cancelled
        self.engine.close()
        if self.streams is not None and self.streams is not self.engine:
            self.streams.close()

    def _admit(self, n_tokens: int, *, timeout_s: float) -> None:
        waiting = self._waiting_tokens
        if not waiting:
            return
        ahead_s = (waiting + self._made_tokens) / self._rate.tokens_per_s
        retry_after_s = min(max(math.ceil(ahead_s), 1), _RETRY_AFTER_MAX_S)
        if waiting + n_tokens > self.max_queue_tokens:
            raise Overloaded(
                f"{waiting} tokens are waiting and at most {self.max_queue_tokens} may", retry_after_s=retry_after_s
            )
        if ahead_s + n_tokens / self._rate.tokens_per_s > _ADMIT_WITHIN * timeout_s:
            raise Overloaded(
                f"{waiting} tokens are waiting, too many for an answer within {timeout_s:g} s",
                retry_after_s=retry_after_s,
            )

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._ended = [self._loop.create_future() for _ in range(_N_WORKERS)]
            # daemons, so that an engine that hangs cannot keep the process from ending
            self._workers = [threading.Thread(target=self._work, args=[end], daemon=True) for end in self._ended]
            for worker in self._workers:
                worker.start()
        return self._loop

    def _forget(self, entries: Iterable[_Entry]) -> None:
        with self._changed:
            for entry in entries:
                self._leave_queue(entry)

    def _leave_queue(self, entry: _Entry) -> bool:
        """Whether the entry was still waiting."""
        if entry not in self._waiting:
            return False
        del self._waiting[entry]
        self._waiting_tokens -= len(entry.row)
        return True

    def _work(self, ended: "asyncio.Future[None]") -> None:
        loop = ended.get_loop()
        try:
            while made := self._next_batch():
                ran = self._run(*made)
                loop.call_soon_threadsafe(self._deliver, ran)
                if isinstance(ran.answers, BaseException) and not isinstance(ran.answers, Exception):
                    raise ran.answers
        finally:
            with suppress(RuntimeError):  # the loop has ended without this thread, which hung
                loop.call_soon_threadsafe(ended.set_result, None)

    def _next_batch(self) -> tuple[list[_Entry], Engine] | None:
        """The next micro-batch, as soon as there is one to make, and what runs it; None at the end."""
        with self._changed:
            while True:
                if not self._round and self._may_plan():
                    self._round.extend(self._plan())
                while self._round:
                    now = time.perf_counter()
                    # rows of callers that left are no longer waiting; those that are too late leave here
                    waiting = [entry for entry in self._round.popleft() if self._leave_queue(entry)]
                    if batch := [entry for entry in waiting if entry.submission.deadline > now]:
                        self._n_made += 1
                        self._made_tokens += sum(len(entry.row) for entry in batch)
                        engine = self._engine_of(batch)
                        self._is_taken_whole = engine is not self.streams
                        if self._round:
                            self._changed.notify()
                        return batch, engine
                if not self._may_plan() or not self._waiting:
                    if self._closing and not self._waiting:
                        self._changed.notify_all()
                        return None
                    self._changed.wait()

    def _may_plan(self) -> bool:
        """Whether there is room for another batch: nothing runs, or only a stream."""
        return not self._n_made or not self._is_taken_whole

    def _engine_of(self, batch: list[_Entry]) -> Engine:
        """What runs the batch that was just made: streams, unless it is a row that came alone and still is."""
        lonely = len(batch) == 1 and batch[0].submission.alone and self._n_made == 1 and not self._waiting
        return self.engine if lonely or self.streams is None else self.streams

    def _plan(self) -> list[list[_Entry]]:
        oldest = list(islice(self._waiting, _ROUND_ROWS))
        lengths = [len(entry.row) for entry in oldest]
        batches = cut(lengths, cost=self.cost, token_budget=self.token_budget)
        if self.streams is not None and len(batches) == 1 and len(oldest) > 1:
            batches = in_two(batches[0], lengths, cost=self.cost)
        return [[oldest[index] for index in batch] for batch in sorted(batches, key=min)]

    def _run(self, batch: list[_Entry], engine: Engine) -> "_Ran":
        rows = [entry.row for entry in batch]
        answers: list[Tensors] | BaseException
        started = ended = 0.0
        try:
            inputs: Tensors = {**pad(rows, pad_id=self._pad_id)}
            with self._turn:
                started = time.perf_counter()
                with self._changed:
                    self._entered[id(batch)] = started
                    self._n_begun += 1
                    self._wanted = self._n_made > 1 or bool(self._waiting)
                try:
                    outputs = engine.run(inputs)
                finally:
                    ended = time.perf_counter()
            answers = split(outputs, rows, per_token=self._per_token)
        except BaseException as error:
            answers = error
        finally:
            n_tokens = sum(len(row) for row in rows)
            engine_s = (ended - started) / engine.streams
            with self._changed:
                self._entered.pop(id(batch), None)
                self._n_made -= 1
                self._made_tokens -= n_tokens
                if self._waiting:
                    self._rate.add(n_tokens, engine_s)
        return _Ran(batch, answers, started=started, ended=ended, engine_s=engine_s)

    def _deliver(self, ran: "_Ran") -> None:
        rows = [entry.row for entry in ran.batch]
        submissions = dict.fromkeys(entry.submission for entry in ran.batch)
        for submission in submissions:
            submission.timing.batch = rows
            submission.ran.append((ran.started, ran.ended))
        if isinstance(ran.answers, BaseException):
            _fail(submissions, ran.answers)
        else:
            for entry, answer in zip(ran.batch, ran.answers, strict=True):
                submission = entry.submission
                submission.outputs[entry.place] = answer
                submission.n_left -= 1
                if not submission.n_left and not submission.answer.done():
                    submission.answer.set_result(submission.outputs)
        if self.on_batch is not None:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._tell, ran)  # in the next turn the answers leave

    def _tell(self, ran: "_Ran") -> None:
        assert self.on_batch is not None
        lengths = [len(entry.row) for entry in ran.batch]
        stats = BatchStats(
            n_rows=len(lengths),
            n_tokens=sum(lengths),
            n_padded=len(lengths) * max(lengths),
            engine_s=ran.engine_s,
        )
        try:
            self.on_batch(stats)
        except Exception:
            _LOG.exception("the batch hook failed")


@dataclass(frozen=True, slots=True)
class _Ran:
    batch: list[_Entry]
    answers: list[Tensors] | BaseException
    started: float = field(kw_only=True)
    ended: float = field(kw_only=True)
    engine_s: float = field(kw_only=True)


def _expire(answer: "asyncio.Future[list[Tensors]]", timeout_s: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded.after(timeout_s))


def _fail(submissions: Iterable[_Submission], error: BaseException) -> None:
    if not isinstance(error, BistilError):
        error = EngineError(f"the engine failed: {type(error).__name__}").with_traceback(error.__traceback__)
    for submission in submissions:
        if not submission.answer.done():
            submission.answer.set_exception(error)
