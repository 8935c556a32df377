"""The application, and the ``bistil-serve`` command."""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app import __version__
from app.energy import Ledger, open_meter
from app.errors import BistilError
from app.instrument import Instrument
from app.keys import Guard, read_keys
from app.metrics import Metrics
from app.open_inference import router as open_inference
from app.openapi import with_keys
from app.playground import router as playground
from app.problems import problem
from app.routes import router
from app.server import Server
from app.service import Service
from app.settings import Settings
from app.store import ModelStore, Served


def create_app(settings: Settings, served: Sequence[Served] | None = None) -> FastAPI:
    """The application: it loads what ``settings`` ask for in the background, or serves ``served`` at once."""
    metrics = Metrics(Ledger(open_meter(settings.device), usd_per_hour=settings.usd_per_hour))
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
    keys = read_keys(inline=settings.keys, file=settings.keys_file)
    for routes in (router, playground, open_inference):
        app.include_router(routes)
    for kind in (BistilError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _problem)
    if keys:
        app.openapi_schema = with_keys(app.openapi())
        app.add_middleware(Guard, keys=keys)
    app.add_middleware(
        Instrument,
        metrics=metrics,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.receive_timeout_s,
        is_draining=lambda: service.draining,
    )
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns 0, 2 where the configuration cannot be used, 1 where a model cannot be loaded."""
    _log_json()
    try:
        settings = Settings.from_flags(argv)
        store = ModelStore(settings.store, cache=settings.cache_folder)
        if not store.is_remote:
            store.find(languages=settings.lang, tasks=settings.tasks)
        app = create_app(settings)
    except BistilError as error:
        print(f"bistil-serve: {error}", file=sys.stderr)
        return error.exit_code
    service: Service = app.state.service
    Server.of(app, service=service, settings=settings).run()
    return 0 if service.failure is None else 1


async def _problem(request: Request, error: Exception) -> Response:
    trace = request.state.trace
    body = getattr(request.scope.get("route"), "body_field", None)
    told = problem(error, request_type=body and body.field_info.annotation)
    trace.problem = told.slug
    return told.response(trace.request_id, path=request.scope["path"])


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
