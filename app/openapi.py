"""What the published document says of every route beside its types: errors, headers, other media."""

from collections.abc import Sequence
from typing import Any

from app import conllu
from app.keys import is_guarded
from app.problems import MEDIA_TYPE
from app.schemas.models import Problem

Responses = dict[int | str, dict[str, Any]]

_DESCRIBED = {
    400: "The body cannot be read.",
    401: "A key is needed.",
    403: "The key is not for this language.",
    404: "This language or task is not served.",
    408: "The body took too long to arrive.",
    413: "The body has too many bytes.",
    422: "The body is not what this task takes, or an input is too long.",
    500: "The model failed.",
    503: "Loading, shutting down, or the queue is full; see Retry-After.",
    504: "The deadline passed.",
}
_TIMEOUT = {
    "name": "x-request-timeout-ms",
    "in": "header",
    "description": "milliseconds the caller will wait, up to the server's own limit",
    "schema": {"type": "integer", "minimum": 1},
}
FORMATS = ("json", "conllu")
_FORMAT = {
    "name": "format",
    "in": "query",
    "description": "what to answer with; none: as Accept says",
    "schema": {"type": "string", "enum": list(FORMATS)},
}
_TOLD = {
    "x-request-id": "the request's own, or one made up",
    "x-bistil-model": "language/task/revision/variant@sha256 of what answered",
    "x-bistil-windows": "rows the model read",
    "server-timing": "milliseconds by stage",
}


def problems(*codes: int) -> Responses:
    """These statuses, each with problem details."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {code: {"description": _DESCRIBED[code], "content": content} for code in codes}


def text(media_type: str) -> Responses:
    """An answer that may also be text of this type."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}}}}}


def inference(*, tags: Sequence[str] = ("inference",), with_conllu: bool = False) -> dict[str, Any]:
    """Keywords of a route that runs a model."""
    answered: dict[str, Any] = {"headers": {name: _header(told) for name, told in _TOLD.items()}}
    if with_conllu:
        answered |= text(conllu.MEDIA_TYPE)[200]
    return {
        "tags": list(tags),
        "responses": {200: answered} | problems(400, 401, 403, 404, 408, 413, 422, 500, 503, 504),
        "openapi_extra": {"parameters": [_TIMEOUT, *([_FORMAT] if with_conllu else [])]},
    }


def probe() -> Responses:
    """A probe's 503, which has the body of its 200."""
    return {503: {"description": "Not now.", "content": {"application/json": {"schema": {"type": "object"}}}}}


def with_keys(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a server that asks for keys."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if is_guarded(path):
            for operation in operations.values():
                operation["security"] = [{"key": []}]
    return document


def _header(told: str) -> dict[str, Any]:
    return {"description": told, "schema": {"type": "string"}}
