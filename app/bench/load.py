"""A closed loop: each client sends its next request when it has the answer to the last."""

import asyncio
import itertools
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.errors import EngineError

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_FORWARD = re.compile(rb"server-timing:[^\r]*fwd;dur=([\d.]+)", re.IGNORECASE)
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What one request sends, and how many texts are in it."""

    content: bytes
    n_texts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One request: when its answer came, how long it took, and how much of it the server says its engine took."""

    at: float
    seconds: float
    forward_s: float | None
    n_texts: int


async def closed_loop(url: str, bodies: Sequence[Body], *, n_clients: int, seconds: float) -> list[Answered]:
    """What ``n_clients`` got within ``seconds``, and each's last answer after it; each has a connection of its own.

    Each sends at least one request.

    :raises EngineError: an answer is not 200, or none came for two minutes.
    """
    found: list[Answered] = []
    supply = itertools.cycle(bodies)
    until = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(n_clients):
            group.create_task(_client(url, supply, until, found))
    return sorted(found, key=lambda answer: answer.at)


async def _client(url: str, supply: Iterator[Body], until: float, found: list[Answered]) -> None:
    place, _, path = url.removeprefix("http://").partition("/")
    host, _, port = place.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        while True:
            body = next(supply)
            head = f"POST /{path} HTTP/1.1\r\nhost: {place}\r\ncontent-type: application/json\r\n"
            started = time.perf_counter()
            writer.write(f"{head}content-length: {len(body.content)}\r\n\r\n".encode() + body.content)
            async with asyncio.timeout(_PATIENCE_S):
                answer = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(answer)
                if length is None or not answer.startswith(b"HTTP/1.1 200"):
                    status = answer.split(b"\r\n", 1)[0].decode()
                    raise EngineError(f"{url} answered {status}")
                await reader.readexactly(int(length[1]))
            ended = time.perf_counter()
            told = _FORWARD.search(answer)
            found.append(
                Answered(
                    at=ended,
                    seconds=ended - started,
                    forward_s=float(told[1]) / 1000 if told else None,
                    n_texts=body.n_texts,
                )
            )
            if ended >= until:
                return
    except TimeoutError as error:
        raise EngineError(f"{url} did not answer for {_PATIENCE_S:g} s") from error
    finally:
        writer.close()
