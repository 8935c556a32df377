"""A closed loop: each client sends its next request when it has the answer to the last."""

import asyncio
import itertools
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

from app.errors import EngineError

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_FORWARD = re.compile(rb"server-timing:[^\r]*fwd;dur=([\d.]+)", re.IGNORECASE)
_LINE = b"\r\n"
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


def closed_loop(
    url: str, bodies: Sequence[Body], *, n_clients: int, seconds: float, pause_s: float = 0.0
) -> list[Answered]:
    """What ``n_clients`` got within ``seconds``, and each's last answer after it; each has a connection of its own.

    Each sends at least one request, and after each answer waits ``pause_s`` in the mean, exponentially distributed, as
    people do. A request takes from its bytes being written until the last of its answer is read.

    :raises EngineError: an answer is not 200, or none came for two minutes.
    """
    return uvloop.run(_closed_loop(url, bodies, n_clients=n_clients, seconds=seconds, pause_s=pause_s))


async def _closed_loop(
    url: str, bodies: Sequence[Body], *, n_clients: int, seconds: float, pause_s: float
) -> list[Answered]:
    found: list[Answered] = []
    supply = itertools.cycle(bodies)
    until = time.perf_counter() + seconds
    waits = pauses(pause_s)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(n_clients):
                group.create_task(_client(url, supply, waits, until, found))
    except* EngineError as failed:
        raise failed.exceptions[0] from failed
    return sorted(found, key=lambda answer: answer.at)


def pauses(mean_s: float) -> Iterator[float]:
    """Seconds to wait, exponentially distributed about ``mean_s``; the same each time."""
    drawn = random.Random(0)
    while True:
        yield drawn.expovariate(1 / mean_s) if mean_s else 0.0


async def _client(
    url: str, supply: Iterator[Body], waits: Iterator[float], until: float, found: list[Answered]
) -> None:
    place, _, path = url.removeprefix("http://").partition("/")
    host, _, port = place.partition(":")
    head = f"POST /{path} HTTP/1.1\r\nhost: {place}\r\ncontent-type: application/json\r\n"
    transport, connection = await asyncio.get_running_loop().create_connection(_Connection, host, int(port))
    try:
        while True:
            body = next(supply)
            request = f"{head}content-length: {len(body.content)}\r\n\r\n".encode() + body.content
            async with asyncio.timeout(_PATIENCE_S):
                answer = await connection.ask(request)
            if not answer.head.startswith(b"HTTP/1.1 200"):
                raise EngineError(f"{url} answered {answer.head.split(_LINE, 1)[0].decode()}")
            told = _FORWARD.search(answer.head)
            found.append(
                Answered(
                    at=answer.at,
                    seconds=answer.seconds,
                    forward_s=float(told[1]) / 1000 if told else None,
                    n_texts=body.n_texts,
                )
            )
            if answer.at >= until:
                return
            await asyncio.sleep(next(waits))
    except (TimeoutError, ConnectionError) as error:
        raise EngineError(f"{url} did not answer: {error or f'{_PATIENCE_S:g} s have passed'}") from error
    finally:
        transport.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    head: bytes
    at: float
    seconds: float


class _Connection(asyncio.Protocol):
    """One request after another, and as little as possible beside it: what the generator takes, a server is said to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[_Answer]:
        """The answer to a request, when all of it has come."""
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._started = time.perf_counter()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._received += data
        head, ended, body = self._received.partition(2 * _LINE)
        length = _LENGTH.search(head)
        if ended and length is not None and len(body) >= int(length[1]) and not self._answer.done():
            self._answer.set_result(_Answer(head=head, at=now, seconds=now - self._started))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection was closed"))
