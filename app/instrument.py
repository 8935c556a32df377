"""The outermost middleware: every request gets an id, a limit of bytes and headers, and is counted once, here."""

import asyncio
import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.body import limited
from app.metrics import Metrics
from app.problems import problem
from app.trace import Trace

_LOG = logging.getLogger(__name__)
_OK = 200
_COUNTED = ("/v1/", "/v2/")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Instrument:
    """ASGI middleware: a request's id, byte limit, headers and count, and a problem for what nobody caught."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body_bytes: int,
        body_timeout_s: float,
        is_draining: Callable[[], bool],
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.max_body_bytes = max_body_bytes
        self.body_timeout_s = body_timeout_s
        self.is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        trace = Trace(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex, time.perf_counter())
        scope.setdefault("state", {})["trace"] = trace
        code = 500
        begun = False

        async def send_traced(message: Message) -> None:
            nonlocal code, begun
            if message["type"] == "http.response.start":
                begun = True
                code = message["status"]
                _finish(MutableHeaders(scope=message), trace, is_last=self.is_draining())
            await send(message)

        try:
            await self.app(
                scope,
                limited(receive, headers, max_bytes=self.max_body_bytes, timeout_s=self.body_timeout_s),
                send_traced,
            )
        except Exception as error:
            # the message of an unforeseen error may quote the request, so the log gets its kind and place alone
            place = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("request %s failed: %s\n%s", trace.request_id, type(error).__name__, place)
            if not begun:
                await problem(error).response(trace.request_id, path=scope["path"])(scope, receive, send_traced)
        finally:
            if scope["method"] == "POST" and scope["path"].startswith(_COUNTED):
                # in the loop's next turn: what was sent leaves at the end of this one
                asyncio.get_running_loop().call_soon(self._count, trace, code)

    def _count(self, trace: Trace, code: int) -> None:
        self.metrics.request(trace, code=code)
        if trace.after_reply is not None and code == _OK:
            trace.after_reply()


def _finish(headers: MutableHeaders, trace: Trace, *, is_last: bool) -> None:
    if is_last:
        headers["connection"] = "close"  # so that no client sends its next request into a closing connection
    headers["x-request-id"] = trace.request_id
    for name, value in trace.headers.items():
        headers[name] = value
    if trace.stages:
        short = {"tokenize": "tok", "forward": "fwd"}
        parts = (f"{short.get(stage, stage)};dur={1000 * seconds:.3f}" for stage, seconds in trace.stages.items())
        headers["server-timing"] = ", ".join(parts)
