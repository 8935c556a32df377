"""The HTTP surface. Routes hold no counters and no rules: they pass a request to the service and its answer back."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic_core import to_json

from app import __version__, conllu, exchange, playground
from app.errors import BundleError, InvalidInput
from app.json_route import JsonRoute
from app.openapi import FORMATS, inference, probe, problems, text
from app.schemas.base import TaskRequest
from app.schemas.dp import DpRequest, ParsedWord
from app.schemas.models import Card, LanguageCard, Model, Models
from app.schemas.ner import Entity, NerRequest
from app.schemas.nli import Label, NliRequest
from app.schemas.pos import PosRequest, Word
from app.schemas.qa import AnswerSpan, QaRequest
from app.schemas.zero_shot import ZeroShotRequest
from app.service import Service

_LOOKUP = problems(401, 403, 404, 422, 503)

_MAY_BE_CONLLU = inference(with_conllu=True)

# routes are tried in their order, so that those asked most come first
router = APIRouter(route_class=JsonRoute)


@router.post("/v1/{language}/ner", response_model=list[Entity] | list[list[Entity]], **inference())
async def ner(language: str, body: NerRequest, request: Request) -> Response:
    """Named entities, as Hugging Face's token classification."""
    return await _answer(request, body, language=language, task="ner")


@router.post("/v1/{language}/pos", response_model=list[Word] | list[list[Word]], **_MAY_BE_CONLLU)
async def pos(language: str, body: PosRequest, request: Request) -> Response:
    """Universal parts of speech, one object a word; CoNLL-U with `format=conllu`, or where `Accept` asks for it."""
    render = body.as_conllu if _wants_conllu(request) else None
    return await _answer(request, body, language=language, task="pos", render=render)


@router.post("/v1/{language}/dp", response_model=list[ParsedWord] | list[list[ParsedWord]], **_MAY_BE_CONLLU)
async def dp(language: str, body: DpRequest, request: Request) -> Response:
    """A dependency tree a sentence, one object a word; CoNLL-U with `format=conllu`, or where `Accept` asks for it."""
    render = body.as_conllu if _wants_conllu(request) else None
    return await _answer(request, body, language=language, task="dp", render=render)


@router.post("/v1/{language}/nli", response_model=list[list[Label]], **inference())
async def nli(language: str, body: NliRequest, request: Request) -> Response:
    """Whether one text follows from another, as Hugging Face's text classification."""
    return await _answer(request, body, language=language, task="nli")


@router.post("/v1/{language}/zero-shot", response_model=list[Label] | list[list[Label]], **inference())
async def zero_shot(language: str, body: ZeroShotRequest, request: Request) -> Response:
    """Labels of the client's own, as Hugging Face's zero-shot classification, by the language's model of inference."""
    return await _answer(request, body, language=language, task="nli")


@router.post("/v1/{language}/qa", response_model=AnswerSpan | list[AnswerSpan] | list[list[AnswerSpan]], **inference())
async def qa(language: str, body: QaRequest, request: Request) -> Response:
    """The span of a context that answers a question, as Hugging Face's question answering."""
    return await _answer(request, body, language=language, task="qa")


@router.get("/", include_in_schema=False)
async def index(request: Request) -> Response:
    """The playground where ``Accept`` asks for HTML; for others what this is, and where things are."""
    if "text/html" in request.headers.get("accept", ""):
        return playground.page(request)
    service = _service(request)
    routes = {"models": "/v1/models", "metrics": "/metrics", "ready": "/readyz", "live": "/livez"}
    if service.settings.docs:
        routes["docs"] = "/docs"
    response = _json({"name": "bistil", "version": __version__, "routes": routes, "served": service.planned()})
    response.headers["vary"] = "accept"
    return response


@router.get("/livez", tags=["operations"], responses=probe())
async def livez(request: Request) -> Response:
    """200 while the engines can answer, however busy they are."""
    alive = _service(request).alive
    return _json({"alive": alive}, status=200 if alive else 503)


@router.get("/readyz", tags=["operations"], responses=probe())
async def readyz(request: Request) -> Response:
    """200 when every configured model is up; 503 before that and from SIGTERM on."""
    service = _service(request)
    missing = sorted(set(service.planned()) - {f"{model.language}/{model.task}" for model in service.served})
    body = {"ready": service.ready, "draining": service.draining, "loading": missing}
    return _json(body, status=200 if service.ready else 503)


@router.get("/metrics", tags=["operations"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    service = _service(request)
    content = service.metrics.render(service.served, ready=service.ready)
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/models", tags=["models"], response_model=Models, responses=problems(401))
async def models(request: Request) -> Response:
    """The models that are up."""
    service = _service(request)
    told = [Model.of(model, service.metrics.per_1000(model)).model_dump() for model in service.served]
    return _json({"models": told})


@router.get("/v1/{language}/ready", tags=["operations"], responses=probe() | problems(404, 422))
async def language_ready(language: str, request: Request) -> Response:
    """200 when every configured model of one language is up."""
    is_ready = _service(request).language_ready(language)
    return _json({"ready": is_ready}, status=200 if is_ready else 503)


@router.get("/v1/{language}/card", tags=["models"], response_model=LanguageCard, responses=_LOOKUP)
async def language_card(language: str, request: Request) -> Response:
    """What is known about all models of a language: scores beside the teacher's and a baseline's, licence, hashes."""
    cards = [Card.of(model).model_dump() for model in _service(request).models(language)]
    return _json({"language": language, "tasks": cards})


@router.get("/v1/{language}/{task}/card", tags=["models"], responses=_LOOKUP | text("text/markdown"))
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


@router.post("/v1/{language}/{task}", include_in_schema=False)
async def unknown_task(language: str, task: str, request: Request) -> Response:
    """404 with a list of what is served: no task has this name."""
    _service(request).model(language, task)
    raise InvalidInput(f"this version has no route for the task of that bundle: {task}")


async def _answer(
    request: Request,
    body: TaskRequest,
    *,
    language: str,
    task: str,
    render: Callable[[Sequence[Any]], str] | None = None,
) -> Response:
    """The body's own JSON answer, or the CoNLL-U that ``render`` makes of the predictions."""
    payload = await exchange.answer(request, body, language=language, task=task, render=render)
    started = time.perf_counter()
    response = _json(payload) if render is None else Response(payload, media_type=f"{conllu.MEDIA_TYPE}; charset=utf-8")
    request.state.trace.stages["serialize"] = time.perf_counter() - started
    return response


def _wants_conllu(request: Request) -> bool:
    asked = request.query_params.get("format")
    if asked not in (None, *FORMATS):
        raise InvalidInput(f"format should be one of: {', '.join(FORMATS)}")
    return conllu.MEDIA_TYPE in request.headers.get("accept", "") if asked is None else asked == "conllu"


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _json(payload: Any, *, status: int = 200) -> Response:
    return Response(to_json(payload), status_code=status, media_type="application/json")
