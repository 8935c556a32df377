"""A request's body, within its limits of bytes and of time, however it arrives."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from app.problems import BodyTooLarge, BodyTooSlow


def limited(receive: Receive, headers: Headers, *, max_bytes: int, timeout_s: float) -> Receive:
    """``receive`` that refuses a body of more than ``max_bytes``, declared or not, or slower than ``timeout_s``.

    The time runs from the first call and ends with the body; what comes after it, the client's leaving, has none.
    """
    declared = headers.get("content-length", "")
    declared_bytes = int(declared) if declared.isdecimal() else 0
    seen = 0
    deadline: float | None = None
    complete = False

    async def receive_limited() -> Message:
        nonlocal seen, deadline, complete
        if complete:
            return await receive()
        if declared_bytes > max_bytes:
            raise BodyTooLarge(actual=declared_bytes, limit=max_bytes)
        deadline = deadline or asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise BodyTooSlow(limit_s=timeout_s) from error
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise BodyTooLarge(actual=seen, limit=max_bytes)
        complete = not message.get("more_body", False)
        return message

    return receive_limited
