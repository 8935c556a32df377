"""One request's way from HTTP to the service and back, the same for every task and protocol."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request

from app.errors import ClientGone, InvalidInput
from app.schemas.base import TaskRequest
from app.service import Service
from app.trace import Trace

_MOST_DIGITS = 15


async def answer(
    request: Request,
    body: TaskRequest,
    *,
    language: str,
    task: str,
    render: Callable[[Sequence[Any]], Any] | None = None,
) -> Any:
    """What ``render``, or else the body's ``answer``, makes of the predictions; extras go into the trace's headers.

    :raises ClientGone: nobody waits for the answer any more; what had not begun was dropped.
    :raises NotServed: there is no such model.
    :raises InvalidInput: the header x-request-timeout-ms is no number of milliseconds.
    """
    service: Service = request.app.state.service
    trace: Trace = request.state.trace
    model = service.model(language, task)
    trace.model = (language, task)
    trace.stages["parse"] = time.perf_counter() - trace.started
    trace.headers["x-bistil-model"] = model.name
    timeout_s = _timeout_s(request, limit=service.settings.timeout_s)
    async with _watched(request):
        payload = await service.answer(model, body, trace, timeout_s=timeout_s, render=render)
    trace.headers["x-bistil-windows"] = str(trace.n_windows)
    return payload


@asynccontextmanager
async def _watched(request: Request) -> AsyncIterator[None]:
    """Cancel what is inside when the client leaves: after its body, that is the only message to come."""
    inside = asyncio.current_task()
    assert inside is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        await request.receive()
        is_gone = True
        inside.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not is_gone:
            raise
        inside.uncancel()
        raise ClientGone("the client closed its connection before its answer was there") from None
    finally:
        watcher.cancel()


def _timeout_s(request: Request, *, limit: float) -> float:
    given = request.headers.get("x-request-timeout-ms")
    if given is None:
        return limit
    digits = given.lstrip("0")
    if not given.isdecimal() or not digits:
        raise InvalidInput("x-request-timeout-ms must be a whole number of milliseconds above 0")
    return limit if len(digits) > _MOST_DIGITS else min(int(digits) / 1000, limit)
