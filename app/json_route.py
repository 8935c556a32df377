"""JsonRoute: a route that FastAPI documents, and that reads its JSON body itself."""

import json
from email.message import Message
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.errors import ClientGone

_JSON = "application/json"


class JsonRoute(APIRoute):
    """For endpoints of the path's parameters as text, the ``request``, and a ``body`` of one model, or of no body.

    FastAPI's own handler solves the dependencies of every request and closes what they have opened, which takes longer
    than reading the body does. Its exceptions are those that the application handles, as everywhere.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that the path has led here."""
        if self.body_field is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        body = await _read(request, self.body_field.field_info.annotation)
        response = await self.endpoint(**request.path_params, body=body, request=request)
        await response(scope, receive, send)


async def _read(request: Request, kind: Any) -> Any:
    """The body as this pydantic model.

    Where no type is named, as in Triton's client, it is read as JSON.

    :raises RequestValidationError: it is not of a JSON type, not JSON, or not what the model takes.
    :raises HTTPException: it cannot be decoded.
    :raises ClientGone: the client left before all of it was there.
    """
    try:
        content = await request.body()
    except ClientDisconnect as error:
        raise ClientGone("the client closed its connection before its request was there") from error
    given: Any = content or None
    if content and _is_json(request.headers.get("content-type", _JSON)):
        try:
            given = json.loads(content)
        except json.JSONDecodeError as error:
            raise RequestValidationError([_fault("json_invalid", error.msg)]) from error
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "the body cannot be read") from error
    try:
        return kind.model_validate(given, from_attributes=True)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise RequestValidationError([fault | {"loc": ("body", *fault["loc"])} for fault in faults]) from error


def _is_json(content_type: str) -> bool:
    """Whether a header names JSON, or one of the types that are written in it."""
    if content_type == _JSON:
        return True
    message = Message()
    message["content-type"] = content_type
    return message.get_content_maintype() == "application" and (
        message.get_content_subtype() == "json" or message.get_content_subtype().endswith("+json")
    )


def _fault(kind: str, told: str) -> dict[str, Any]:
    return {"type": kind, "loc": ("body",), "msg": told, "input": None}
