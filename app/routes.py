"""The HTTP surface. Routes hold no counters and no rules: they pass a request to the service and its answer back."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json
from starlette.types import Message

from app import __version__, conllu
from app.errors import BundleError, InvalidInput
from app.metrics import Trace
from app.problems import MEDIA_TYPE
from app.schemas import (
    AnswerSpan,
    DpRequest,
    Entity,
    Label,
    Model,
    Models,
    NerRequest,
    NliRequest,
    ParsedWord,
    PosRequest,
    Problem,
    QaRequest,
    Word,
)
from app.schemas import Request as TaskRequest
from app.service import Service
from app.store import Served

_GONE = 499
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"description": description, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
    for code, description in {
        404: "This language or task is not served.",
        413: "The body has too many bytes.",
        422: "The body is not what this task takes, or an input is too long.",
        500: "The model failed.",
        503: "Loading, shutting down, or the queue is full; see Retry-After.",
        504: "The deadline passed.",
    }.items()
}
_LOOKUP_PROBLEMS: dict[int | str, dict[str, Any]] = {code: _PROBLEMS[code] for code in (404, 422, 503)}

router = APIRouter()


@router.get("/", include_in_schema=False)
async def index(request: Request) -> Response:
    """What this is, and where things are."""
    service = _service(request)
    routes = {"models": "/v1/models", "docs": "/docs", "metrics": "/metrics", "ready": "/readyz", "live": "/livez"}
    return _json({"name": "bistil", "version": __version__, "routes": routes, "served": service.planned()})


@router.get("/livez", tags=["operations"])
async def livez(request: Request) -> Response:
    """200 while the engines can answer, however busy they are."""
    alive = _service(request).alive
    return _json({"alive": alive}, status=200 if alive else 503)


@router.get("/readyz", tags=["operations"])
async def readyz(request: Request) -> Response:
    """200 when every configured model is up; 503 before that and from SIGTERM on."""
    service = _service(request)
    missing = sorted(set(service.planned()) - {f"{model.language}/{model.task}" for model in service.served})
    body = {"ready": service.ready, "draining": service.draining, "loading": missing}
    return _json(body, status=200 if service.ready else 503)


@router.get("/metrics", tags=["operations"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    service = _service(request)
    content = service.metrics.render(service.served, ready=service.ready)
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/models", tags=["models"], response_model=Models)
async def models(request: Request) -> Response:
    """The models that are up."""
    return _json({"models": [_model(model).model_dump() for model in _service(request).served]})


@router.get("/v1/{language}/ready", tags=["operations"], responses=_LOOKUP_PROBLEMS)
async def language_ready(language: str, request: Request) -> Response:
    """200 when every configured model of one language is up."""
    is_ready = _service(request).language_ready(language)
    return _json({"ready": is_ready}, status=200 if is_ready else 503)


@router.get("/v1/{language}/{task}/card", tags=["models"], responses=_LOOKUP_PROBLEMS)
async def card(language: str, task: str, request: Request) -> Response:
    """The bundle's manifest; its card for people where ``Accept`` asks for ``text/markdown``."""
    model = _service(request).model(language, task)
    if "text/markdown" not in request.headers.get("accept", ""):
        return Response(model.bundle.manifest.to_json(), media_type="application/json")
    path = model.bundle.folder / "card.md"
    try:
        return Response(await asyncio.to_thread(path.read_bytes), media_type="text/markdown; charset=utf-8")
    except OSError as error:
        raise BundleError("the bundle has no card.md") from error


@router.post(
    "/v1/{language}/ner", tags=["inference"], response_model=list[Entity] | list[list[Entity]], responses=_PROBLEMS
)
async def ner(language: str, body: NerRequest, request: Request) -> Response:
    """Named entities, as Hugging Face's token classification."""
    return await _answer(language, "ner", body, request)


@router.post(
    "/v1/{language}/pos", tags=["inference"], response_model=list[Word] | list[list[Word]], responses=_PROBLEMS
)
async def pos(language: str, body: PosRequest, request: Request) -> Response:
    """Universal parts of speech, one object a word."""
    return await _answer(language, "pos", body, request)


@router.post(
    "/v1/{language}/dp",
    tags=["inference"],
    response_model=list[ParsedWord] | list[list[ParsedWord]],
    responses={**_PROBLEMS, 200: {"content": {conllu.MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def dp(
    language: str, body: DpRequest, request: Request, format: Literal["json", "conllu"] | None = None
) -> Response:
    """A dependency tree a sentence, one object a word; CoNLL-U with `format=conllu`, or where `Accept` asks for it."""
    wants_conllu = conllu.MEDIA_TYPE in request.headers.get("accept", "") if format is None else format == "conllu"
    return await _answer(language, "dp", body, request, render=body.conllu if wants_conllu else None)


@router.post("/v1/{language}/nli", tags=["inference"], response_model=list[list[Label]], responses=_PROBLEMS)
async def nli(language: str, body: NliRequest, request: Request) -> Response:
    """Whether one text follows from another, as Hugging Face's text classification."""
    return await _answer(language, "nli", body, request)


@router.post(
    "/v1/{language}/qa",
    tags=["inference"],
    response_model=AnswerSpan | list[AnswerSpan] | list[list[AnswerSpan]],
    responses=_PROBLEMS,
)
async def qa(language: str, body: QaRequest, request: Request) -> Response:
    """The span of a context that answers a question, as Hugging Face's question answering."""
    return await _answer(language, "qa", body, request)


@router.post("/v1/{language}/{task}", include_in_schema=False)
async def unknown_task(language: str, task: str, request: Request) -> Response:
    """404 with a list of what is served: no task has this name."""
    _service(request).model(language, task)
    raise InvalidInput(f"this version has no route for the task of that bundle: {task}")


async def _answer(
    language: str,
    task: str,
    body: TaskRequest,
    request: Request,
    *,
    render: Callable[[Sequence[Any]], str] | None = None,
) -> Response:
    """The body's own JSON answer, or the CoNLL-U that ``render`` makes of the predictions."""
    service = _service(request)
    trace: Trace = request.state.trace
    model = service.model(language, task)
    trace.model = (language, task)
    trace.stages["parse"] = time.perf_counter() - trace.started
    trace.headers["x-bistil-model"] = model.name
    timeout_s = _timeout_s(request, limit=service.settings.timeout_s)
    work = asyncio.create_task(service.answer(model, body, trace, timeout_s=timeout_s, render=render))
    gone: asyncio.Future[Message] = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Response(status_code=_GONE)
        payload = work.result()
    finally:
        for task_ in (work, gone):
            task_.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
    trace.headers["x-bistil-windows"] = str(trace.n_windows)
    started = time.perf_counter()
    response = _json(payload) if render is None else Response(payload, media_type=f"{conllu.MEDIA_TYPE}; charset=utf-8")
    trace.stages["serialize"] = time.perf_counter() - started
    return response


def _timeout_s(request: Request, *, limit: float) -> float:
    given = request.headers.get("x-request-timeout-ms")
    if given is None:
        return limit
    if not given.isdecimal() or int(given) == 0:
        raise InvalidInput("x-request-timeout-ms must be a whole number of milliseconds above 0")
    return min(int(given) / 1000, limit)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _model(model: Served) -> Model:
    manifest = model.bundle.manifest
    url = f"/v1/{model.language}/{model.task}"
    return Model(
        language=model.language,
        task=model.task,
        revision=manifest.revision,
        variant=model.variant.name,
        precision=model.variant.precision,
        labels=list(manifest.labels),
        scores=manifest.scores,
        licence=manifest.licence,
        url=url,
        card=f"{url}/card",
        sha256=model.sha,
    )


def _json(payload: Any, *, status: int = 200) -> Response:
    return Response(to_json(payload), status_code=status, media_type="application/json")
