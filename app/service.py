"""Service: the models that are up, what is still loading, and one request's way through a model."""

import asyncio
import gc
import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from tokenizers import Tokenizer

from app.daemon import in_daemon
from app.errors import (
    BistilError,
    DeadlineExceeded,
    EngineError,
    InputTooLong,
    NotReady,
    NotServed,
    TooManyInputs,
    TooManyTokens,
)
from app.metrics import Metrics
from app.rows import Row
from app.schemas.base import TaskRequest
from app.settings import Settings
from app.shadow import Shadow
from app.store import Location, ModelStore, Served
from app.tasks.base import Task
from app.timing import Timing
from app.trace import Trace

_LOG = logging.getLogger(__name__)
_OFFLOAD_CHARACTERS = 4000
_CLOSE_S = 1.0  # for engines at rest to close, where the requests took all of the time to drain
ResultT = TypeVar("ResultT")


class Service:
    """Loads models in the background, answers with those that are up, and drains."""

    def __init__(self, settings: Settings, metrics: Metrics, *, served: Sequence[Served] | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self.drain_by = math.inf
        self.failure: BistilError | None = None
        self._planned: set[tuple[str, str]] | None = None
        self._served: dict[tuple[str, str], Served] = {}
        self.shadow = Shadow(settings, metrics) if settings.shadow_teacher else None
        if served is not None:
            self._planned = {(model.language, model.task) for model in served}
            for model in served:
                self._add(model)
            if self.shadow is not None:
                self.shadow.open(self.served)

    @property
    def served(self) -> list[Served]:
        """The models that are up, by language and task."""
        return [self._served[key] for key in sorted(self._served)]

    @property
    def ready(self) -> bool:
        """Every configured model is up, no engine is stuck, and the server is not on its way out."""
        return not self.draining and self._planned is not None and self._planned == set(self._served) and self.alive

    @property
    def alive(self) -> bool:
        """No engine has died, or has been stuck in one batch while other work came."""
        return all(model.batcher.alive for model in self._served.values())

    async def load(self) -> None:
        """Bring up what the settings ask for; a failure is logged and kept in ``failure``."""
        try:
            store = ModelStore(self.settings.store, cache=self.settings.cache_folder)
            locations = await in_daemon(lambda: store.find(languages=self.settings.lang, tasks=self.settings.tasks))
            self._planned = {(location.language, location.task) for location in locations}
            for location in locations:
                await self._load(store, location)
            if self.shadow is not None:
                await in_daemon(partial(self.shadow.open, self.served))
            gc.freeze()  # what is there now stays, and need not be walked through at every collection
        except Exception as error:
            _LOG.exception("loading failed: %s", error)
            self.failure = error if isinstance(error, BistilError) else BistilError(f"loading failed: {error}")

    def planned(self, language: str | None = None) -> list[str]:
        """``language/task`` of everything configured, up or not, or of one language."""
        return sorted("/".join(key) for key in self._planned or () if language in (None, key[0]))

    def language_ready(self, language: str) -> bool:
        """Every configured model of ``language`` is up, and takes requests.

        :raises NotServed: nothing is configured for it.
        """
        wanted = {key for key in self._planned or () if key[0] == language}
        if not wanted and self._planned is not None:
            raise self._not_served()
        return bool(wanted) and all(key in self._served and self.is_up(self._served[key]) for key in wanted)

    def is_up(self, model: Served) -> bool:
        """Whether a loaded model takes requests: its engine is not stuck, and the server not on its way out."""
        return not self.draining and model.batcher.alive

    def model(self, language: str, task: str) -> Served:
        """The model of a language and a task.

        :raises NotServed: it is not configured; what is served is listed.
        :raises NotReady: it is configured and still loading.
        """
        key = (language, task)
        if key in self._served:
            return self._served[key]
        if self._planned is None or key in self._planned:
            raise NotReady("the model is still loading", retry_after_seconds=1)
        raise self._not_served()

    def models(self, language: str) -> list[Served]:
        """The models of a language that are up.

        :raises NotServed: nothing is configured for it.
        :raises NotReady: none is up yet.
        """
        found = [model for model in self.served if model.language == language]
        if found or self.language_ready(language):
            return found
        raise NotReady("no model of this language is up yet", retry_after_seconds=1)

    async def answer(
        self,
        model: Served,
        request: TaskRequest,
        trace: Trace,
        *,
        timeout_s: float,
        render: Callable[[Sequence[Any]], Any] | None = None,
    ) -> Any:
        """The JSON body for a request: tokenise, wait, run, decode; the time of each goes into ``trace``.

        ``render`` makes another body of the predictions than the request's ``answer`` does.

        :raises TooManyInputs: more than the settings allow.
        :raises InputTooLong: an input has too many characters.
        :raises TooManyTokens: a part of an input that cannot be windowed has too many pieces, or the request has.
        :raises DeadlineExceeded: ``timeout_s`` passed; rows still waiting have left the queue.
        """
        if (n := request.n_items) > (limit := self.settings.max_inputs):
            raise TooManyInputs(f"the request has {n} inputs, more than {limit}", limit=limit, actual=n)
        n_characters = self._check_texts(request)
        codec = request.adjust(model.codec)
        items = request.items()
        render = render or request.answer

        async def timed(stage: str, call: Callable[[], ResultT]) -> ResultT:
            return await _timed(call, trace, stage, effort=n_characters * request.effort, timeout_s=timeout_s)

        encoded = await timed("tokenize", lambda: _encode(request, items, codec, model.tokenizer))
        rows = [row for item_rows in encoded for row in item_rows]
        trace.n_tokens = sum(len(row) for row in rows)
        if (n := trace.n_tokens) > (limit := self.settings.max_queue_tokens):
            raise TooManyTokens(f"the request has {n} tokens, windows summed, more than {limit}", limit=limit, actual=n)
        if model.guard is not None:
            trace.rare_shares = model.guard.shares(encoded)
            if model.guard.warns(trace.rare_shares):
                trace.headers["x-bistil-warning"] = "language-mismatch"
        left_s = timeout_s - (time.perf_counter() - trace.started)
        if left_s <= 0:
            raise DeadlineExceeded.after(timeout_s)
        timing = Timing()
        try:
            outputs = iter(await model.batcher.submit(rows, timing=timing, timeout_s=left_s))
        finally:
            trace.stages |= timing.stages
        trace.n_windows = len(rows)
        own = [[next(outputs) for _ in item_rows] for item_rows in encoded]
        predictions: list[Any] = []

        def decode() -> Any:
            predictions.extend(codec.decode(*parts) for parts in zip(items, encoded, own, strict=True))
            return render(predictions)

        body = await timed("decode", decode)
        if self.shadow is not None:
            trace.after_reply = self.shadow.sample(model, request, items, predictions, timing.batch)
        return body

    async def close(self) -> None:
        """Answer what was accepted, then free the engines; one that hangs is given up, and is a ``failure``.

        ``drain_by`` is when that has to be over, on the monotonic clock, where open requests were waited for before.
        """
        self.draining = True
        closing = [asyncio.create_task(model.batcher.close()) for model in self._served.values()]
        if self.shadow is not None:
            closing.append(asyncio.create_task(self.shadow.close()))
        if not closing:
            return
        left_s = min(self.settings.drain_timeout_s, max(self.drain_by - time.monotonic(), _CLOSE_S))
        _, hanging = await asyncio.wait(closing, timeout=left_s)
        if hanging:
            self.failure = EngineError(
                f"{len(hanging)} engine(s) hung for {self.settings.drain_timeout_s:g} s at the end"
            )
            _LOG.error("%s", self.failure)

    async def _load(self, store: ModelStore, location: Location) -> None:
        model = await in_daemon(lambda: store.open(location, self.settings))
        self._add(model)
        _LOG.info("serving %s, up in %.2f s", model.name, model.load_s)

    def _add(self, model: Served) -> None:
        self.metrics.register(model)
        self._served[model.language, model.task] = model

    def _not_served(self) -> NotServed:
        choices = self.planned()
        return NotServed(f"not served here; served are: {', '.join(choices)}", served=choices)

    def _check_texts(self, request: TaskRequest) -> int:
        """The characters of all texts; a hypothesis counts with each text that it is asked about."""
        limit = self.settings.max_characters
        total = 0
        for index, value in enumerate(request.values):
            lengths = [len(text) for text in request.texts_of(value)]
            if (longest := max(lengths)) > limit:
                raise InputTooLong(
                    f"an input has {longest} characters, more than {limit}",
                    limit=limit,
                    actual=longest,
                    pointer=request.pointer(index),
                )
            total += sum(lengths)
        return total


def _encode(request: TaskRequest, items: Sequence[Any], codec: Task[Any, Any], tokenizer: Tokenizer) -> list[list[Row]]:
    """The rows of each item; an error names the input that it is about."""
    encoded = []
    for index, item in enumerate(items):
        try:
            encoded.append(codec.encode(item, tokenizer))
        except InputTooLong as error:
            error.extensions["pointer"] = request.pointer(index * len(request.values) // len(items))
            raise
    return encoded


async def _timed(call: Callable[[], ResultT], trace: Trace, stage: str, *, effort: float, timeout_s: float) -> ResultT:
    """Run ``call``, in a thread where it would hold up other requests; a call that has not begun in time never does.

    :raises DeadlineExceeded: ``timeout_s`` passed since the request came.
    """
    started = time.perf_counter()
    try:
        if effort <= _OFFLOAD_CHARACTERS:
            return call()
        async with asyncio.timeout(timeout_s - (started - trace.started)):
            return await asyncio.to_thread(call)
    except TimeoutError as error:
        raise DeadlineExceeded.after(timeout_s) from error
    finally:
        trace.stages[stage] = time.perf_counter() - started
