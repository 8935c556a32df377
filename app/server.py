"""The listening half of the server: signals, the order of shutting down, and connections that never send a request."""

import asyncio
import signal
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.service import Service
from app.settings import Settings

# between accepting a connection and reading its request; a connection closed in between is a request lost
_SETTLE_S = 0.2
# longer than the 60 s for which proxies usually keep an idle connection, so that it is they who close it
_KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """uvicorn that, on SIGTERM, first turns readiness off and keeps serving, then drains and exits 0."""

    def __init__(self, config: uvicorn.Config, *, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._exit_at: float | None = None

    @classmethod
    def of(cls, app: Any, *, service: Service, settings: Settings) -> "Server":
        """A server of ``app`` on the address of ``settings``."""

        class Connection(_Connection):
            receive_timeout_s = settings.receive_timeout_s

        config = uvicorn.Config(
            app,
            http=Connection,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(settings.drain_timeout_s) or 1,
        )
        return cls(config, service=service)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the drain; a second one ends the process as if nobody had handled it."""
        if self._exit_at is not None:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._service.draining = True
        self._exit_at = time.monotonic() + self._service.settings.drain_delay_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let connections already accepted bring their request, then close what is idle."""
        self._service.drain_by = time.monotonic() + self._service.settings.drain_timeout_s
        for server in self.servers:
            server.close()
        await asyncio.sleep(_SETTLE_S)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now: the drain delay is over, or a model could not be loaded."""
        drained = self._exit_at is not None and time.monotonic() >= self._exit_at
        if drained or self._service.failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)


class _Connection(HttpToolsProtocol):
    """Closes when a request's head is not there in time, which uvicorn would wait for without end."""

    receive_timeout_s: float
    _head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_due = self.loop.call_later(self.receive_timeout_s, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_due is None:
            self._head_due = self.loop.call_later(self.receive_timeout_s, self.transport.close)

    def on_headers_complete(self) -> None:
        self._have_head()
        super().on_headers_complete()

    def _have_head(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None
