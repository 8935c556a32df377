"""The application, and the ``bistil-serve`` command."""

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app import __version__
from app.errors import BistilError
from app.metrics import Instrument, Metrics
from app.problems import problem, slug
from app.routes import router
from app.service import Service
from app.settings import Settings
from app.store import ModelStore, Served

# between accepting a connection and reading its request; a connection closed in between is a request lost
_SETTLE_S = 0.2


def create_app(settings: Settings, served: Sequence[Served] | None = None) -> FastAPI:
    """The application: it loads what ``settings`` ask for in the background, or serves ``served`` at once."""
    metrics = Metrics()
    service = Service(settings, metrics, served=served)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load(), name="load") if served is None else None
        yield
        if loading is not None:
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading
        await service.close()

    app = FastAPI(
        title="bistil",
        version=__version__,
        description="Small bilingual students for named entities, parts of speech, inference and question answering.",
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
    )
    app.state.service = service
    app.include_router(router)
    for kind in (BistilError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _problem)
    app.add_middleware(
        Instrument,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        is_draining=lambda: service.draining,
    )
    return app


class Server(uvicorn.Server):
    """uvicorn that, on SIGTERM, first turns readiness off and keeps serving, then drains and exits 0."""

    def __init__(self, config: uvicorn.Config, *, service: Service, drain_delay_s: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_delay_s = drain_delay_s
        self._exit_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the drain; a second one ends it at once."""
        if self._exit_at is not None:
            self.should_exit = self.force_exit = True
            return
        self._service.draining = True
        self._exit_at = time.monotonic() + self._drain_delay_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let connections already accepted bring their request, then close what is idle."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns 0, 2 where the configuration cannot be used, 1 where a model cannot be loaded."""
    _log_json()
    try:
        settings = Settings.from_flags(argv)
        store = ModelStore(settings.store, cache=settings.cache_folder)
        if not store.remote:
            store.find(languages=settings.lang, tasks=settings.tasks)
    except BistilError as error:
        print(f"bistil-serve: {error}", file=sys.stderr)
        return 2
    app = create_app(settings)
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.drain_timeout_s) or 1,
    )
    Server(config, service=service, drain_delay_s=settings.drain_delay_s).run()
    return 0 if service.failure is None else 1


async def _problem(request: Request, error: Exception) -> Response:
    trace = request.state.trace
    trace.problem = slug(error)
    return problem(error, instance=trace.request_id)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object a line."""
        entry = {"time": self.formatTime(record), "level": record.levelname, "logger": record.name}
        entry["message"] = record.getMessage()
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _log_json() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
