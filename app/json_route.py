"""JsonRoute: a route that FastAPI documents, and that reads its JSON body itself."""

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.errors import ClientGone

_JSON = "application/json"


class JsonRoute(APIRoute):
    """For endpoints of the path's parameters as text, the ``request``, and a ``body`` of one model.

    FastAPI's own handler solves the dependencies of every request, which takes longer than its body does.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's, for endpoints without a body."""
        if self.body_field is None:
            return super().get_route_handler()
        kind: Any = self.body_field.field_info.annotation
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            answer: Response = await endpoint(**request.path_params, body=await _read(request, kind), request=request)
            return answer

        return handle


async def _read(request: Request, kind: type[BaseModel]) -> BaseModel:
    """The body as this model.

    :raises RequestValidationError: it is not of a JSON type, not JSON, or not what the model takes.
    :raises HTTPException: it cannot be decoded.
    :raises ClientGone: the client left before all of it was there.
    """
    try:
        content = await request.body()
    except ClientDisconnect as error:
        raise ClientGone("the client closed its connection before its request was there") from error
    given: Any = content or None
    if content and _is_json(request.headers.get("content-type", "")):
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
