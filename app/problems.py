"""Every error as RFC 9457 problem details. No body holds text that a user sent."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import BistilError, InvalidInput

MEDIA_TYPE = "application/problem+json"
_NAME = re.compile(r"[A-Za-z_]{1,40}")
_UNION_TAGS = frozenset({"str", "PairInput", "QuestionInput"})


class BodyTooLarge(HTTPException):
    """413; an HTTPException, so that it passes FastAPI's own handling of a body that cannot be read."""

    def __init__(self, *, actual: int, limit: int) -> None:
        super().__init__(413, f"the body has {actual} bytes or more, and {limit} is the limit")
        self.extensions = {"limit": limit, "actual": actual}


def slug(error: Exception) -> str:
    """What kind of problem an exception is, the last part of its ``type``."""
    if isinstance(error, BistilError):
        return error.type
    if isinstance(error, RequestValidationError):
        return InvalidInput.type
    if isinstance(error, BodyTooLarge):
        return "body-too-large"
    if isinstance(error, HTTPException):
        return HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return BistilError.type


def problem(error: Exception, *, instance: str) -> Response:
    """The response to any exception; ``instance`` is the request's id."""
    if isinstance(error, BistilError):
        headers = {}
        if "retry_after_seconds" in error.extensions:
            headers["retry-after"] = str(error.extensions["retry_after_seconds"])
        return _response(
            error.status, slug(error), error.title, str(error), instance, extensions=error.extensions, headers=headers
        )
    if isinstance(error, RequestValidationError):
        errors = _faults(error.errors())
        kind = InvalidInput
        detail = f"the request is not valid in {len(errors)} place(s)"
        return _response(kind.status, slug(error), kind.title, detail, instance, extensions={"errors": errors})
    if isinstance(error, HTTPException):
        title = HTTPStatus(error.status_code).phrase
        extensions = error.extensions if isinstance(error, BodyTooLarge) else {}
        return _response(
            error.status_code,
            slug(error),
            title,
            str(error.detail),
            instance,
            extensions=extensions,
            headers=error.headers,
        )
    return _response(500, slug(error), BistilError.title, "the server failed to answer", instance)


def _response(
    status: int,
    kind: str,
    title: str,
    detail: str,
    instance: str,
    *,
    extensions: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = {"type": f"urn:bistil:problem:{kind}", "title": title, "status": status, "detail": detail}
    content = to_json(body | {"instance": instance} | dict(extensions or {}))
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def _faults(errors: Sequence[Any]) -> list[dict[str, str]]:
    faults = [{"pointer": _pointer(item["loc"]), "detail": _detail(item)} for item in errors]
    return [fault for index, fault in enumerate(faults) if fault not in faults[:index]]


def _pointer(location: Sequence[str | int]) -> str:
    """A JSON pointer; the tags of unions are no part of it, and a key no schema would have is not repeated."""
    parts = [str(part) for part in location[1:] if part not in _UNION_TAGS and not re.search(r"[\[\](]", str(part))]
    return "".join(f"/{part if part.isdecimal() or _NAME.fullmatch(part) else '?'}" for part in parts)


def _detail(item: Mapping[str, Any]) -> str:
    return "the body is not JSON" if item["type"] == "json_invalid" else str(item["msg"])
