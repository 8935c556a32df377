"""Every error as RFC 9457 problem details. No body holds text that a user sent."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import BistilError, InvalidInput
from app.schemas.base import TAGS

MEDIA_TYPE = "application/problem+json"
_MOST_FAULTS = 100
_NAME = re.compile(r"[A-Za-z_]{1,40}")


class BodyTooLarge(HTTPException):
    """413; an HTTPException, so that it passes FastAPI's own handling of a body that cannot be read."""

    def __init__(self, *, actual: int, limit: int) -> None:
        super().__init__(413, f"the body has {actual} bytes or more, and {limit} is the limit")
        self.extensions = {"limit": limit, "actual": actual}


class BodyTooSlow(HTTPException):
    """408: the body did not arrive in the time a request may take."""

    def __init__(self, *, limit_s: float) -> None:
        super().__init__(408, f"the body did not arrive within {limit_s:g} s", headers={"connection": "close"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is told about an error; ``extensions`` are members beside RFC 9457's own."""

    status: int
    slug: str
    title: str
    detail: str
    extensions: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, instance: str, *, path: str) -> Response:
        """The HTTP response to request ``instance``; under /v2 in the Open Inference Protocol's own shape."""
        body: dict[str, Any]
        if path.startswith("/v2"):
            faults = [f"{fault['pointer']}: {fault['detail']}" for fault in self.extensions.get("errors", ())]
            media_type, body = "application/json", {"error": "; ".join([self.detail, *faults])}
        else:
            media_type, body = MEDIA_TYPE, {"type": f"urn:bistil:problem:{self.slug}", "title": self.title}
            body |= {"status": self.status, "detail": self.detail, "instance": instance} | dict(self.extensions)
        return Response(to_json(body), status_code=self.status, media_type=media_type, headers=dict(self.headers))


def problem(error: Exception, *, request_type: type[BaseModel] | None = None) -> Problem:
    """What to tell about any exception; ``request_type`` is the body's model, for naming its fields."""
    if isinstance(error, BistilError):
        headers = {}
        if "retry_after_seconds" in error.extensions:
            headers["retry-after"] = str(error.extensions["retry_after_seconds"])
        if error.status == 401:
            headers["www-authenticate"] = "Bearer"
        return Problem(
            status=error.status,
            slug=error.type,
            title=error.title,
            detail=str(error),
            extensions=error.extensions,
            headers=headers,
        )
    if isinstance(error, RequestValidationError):
        found = error.errors()
        errors = _faults(found, request_type)
        told = (
            f"{len(errors)} place(s)"
            if len(found) <= _MOST_FAULTS
            else f"{len(found)} places or more; these are the first"
        )
        return Problem(
            status=InvalidInput.status,
            slug=InvalidInput.type,
            title=InvalidInput.title,
            detail=f"the request is not valid in {told}",
            extensions={"errors": errors},
        )
    if isinstance(error, HTTPException):
        title = HTTPStatus(error.status_code).phrase
        return Problem(
            status=error.status_code,
            slug="body-too-large" if isinstance(error, BodyTooLarge) else title.lower().replace(" ", "-"),
            title=title,
            detail=str(error.detail),
            extensions=error.extensions if isinstance(error, BodyTooLarge) else {},
            headers=error.headers or {},
        )
    return Problem(status=500, slug=BistilError.type, title=BistilError.title, detail="the server failed to answer")


def _faults(errors: Sequence[Any], request_type: type[BaseModel] | None) -> list[dict[str, Any]]:
    faults = [_fault(item, request_type) for item in errors[:_MOST_FAULTS]]
    return list({(fault["pointer"], fault["detail"]): fault for fault in faults}.values())


def _fault(item: Mapping[str, Any], request_type: type[BaseModel] | None) -> dict[str, Any]:
    """Where and what, and for a field there is none of, the fields there are, those of like names first."""
    path = item["loc"][1:]
    fault = {"pointer": _pointer(path), "detail": _detail(item)}
    if item["type"] != "extra_forbidden" or request_type is None:
        return fault
    known = _fields(request_type, path[:-1])
    near = get_close_matches(str(path[-1]), known, n=3)
    return fault | {"near": near, "known": known}


def _fields(request_type: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The fields of what is at ``path`` within ``request_type``; of all kinds where there may be several."""
    kinds = [request_type]
    for part in path:
        if isinstance(part, str) and not _is_tag(part):
            fields = [kind.model_fields[part] for kind in kinds if part in kind.model_fields]
            kinds = [nested for field in fields for nested in _models(field.annotation)]
    return sorted({name for kind in kinds for name in kind.model_fields})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer; a key no schema would have is not repeated."""
    parts = [part for part in path if not _is_tag(part)]
    return "".join(f"/{part if isinstance(part, int) or _NAME.fullmatch(part) else '?'}" for part in parts)


def _is_tag(part: str | int) -> bool:
    """Whether a part of a path is the name of a union's branch, which is no part of the body."""
    return part in TAGS


def _detail(item: Mapping[str, Any]) -> str:
    if item["type"] == "json_invalid":
        return "the body is not JSON"
    return "there is no such field" if item["type"] == "extra_forbidden" else str(item["msg"])
