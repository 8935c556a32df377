import asyncio
import json
import socket
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from app.body import limited
from app.problems import BodyTooLarge, BodyTooSlow
from app.settings import Settings
from tests.app import tiny
from tests.app.conftest import open_all
from tests.app.live import listening
from tests.patience import PATIENCE_S


def chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def read(*messages: Message, headers: dict[str, str] | None = None, timeout_s: float = PATIENCE_S) -> list[bytes]:
    """The bodies that come through, of a client that sends ``messages`` and then waits."""
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def run() -> list[bytes]:
        receive_limited = limited(receive, Headers(headers or {}), max_bytes=10, timeout_s=timeout_s)
        found = []
        while True:
            message = await receive_limited()
            found.append(message.get("body", b""))
            if not message.get("more_body"):
                return found

    return asyncio.run(run())


def test_a_body_within_its_limits_comes_through() -> None:
    assert read(chunk(b"12345"), chunk(b"67890", more=False)) == [b"12345", b"67890"]


def test_chunks_are_counted_together_and_a_declared_length_at_once() -> None:
    with pytest.raises(BodyTooLarge) as caught:
        read(chunk(b"12345"), chunk(b"678901"))
    assert caught.value.extensions == {"limit": 10, "actual": 11}
    with pytest.raises(BodyTooLarge) as caught:
        read(headers={"content-length": "11"})
    assert caught.value.extensions == {"limit": 10, "actual": 11}


def test_a_body_that_does_not_end_is_given_up() -> None:
    with pytest.raises(BodyTooSlow):
        read(chunk(b"1"), chunk(b"2"), timeout_s=0.01)


def test_the_time_ends_with_the_body() -> None:
    async def run() -> Message:
        messages = [chunk(b"1", more=False)]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        receive_limited = limited(receive, Headers({}), max_bytes=10, timeout_s=0.01)
        await receive_limited()
        return await receive_limited()

    assert asyncio.run(run()) == {"type": "http.disconnect"}


def test_a_slow_chunked_body_is_a_408_and_loses_its_connection(store: Path) -> None:
    settings = Settings.read(store=str(store), threads=1, receive_timeout_s=1)
    head = "POST /v1/ha/ner HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    with listening(settings, open_all(store, settings)) as server:
        with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(head.encode() + b'5\r\n{"inp\r\n')
            received = b""
            while part := connection.recv(65536):
                received += part
        assert received.startswith(b"HTTP/1.1 408 ")
        body = json.loads(received.partition(b"\r\n\r\n")[2])
        assert body["type"] == "urn:bistil:problem:request-timeout"
        assert tiny.SENTENCE not in body["detail"]
