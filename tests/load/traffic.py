"""Load on one address: requests at a constant rate over kept connections, and what became of each."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

_MOST_IDLE = 4


@dataclass
class Outcome:
    """Statuses by number of requests, ``"lost"`` for those without an answer, and seconds an answered request took."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def n_sent(self) -> int:
        """Requests that were begun."""
        return sum(self.statuses.values())

    @property
    def n_failed(self) -> int:
        """Requests that did not get a 200."""
        return self.n_sent - self.statuses["200"]

    def __str__(self) -> str:
        p50, p99 = 1000 * np.percentile(self.seconds or [np.nan], [50, 99])
        counts = f"{self.n_sent} requests, {self.n_failed} failed ({dict(self.statuses)})"
        return f"{counts}, p50 {p50:.1f} ms, p99 {p99:.1f} ms"


class Traffic:
    """An open loop: a request is sent when it is due, however long the ones before it take.

    Idle connections are used again, the one used longest ago first, until the server says ``connection: close``. Few
    are kept, so that each is used again soon and is told of a server's end before the server closes it.
    """

    def __init__(self, host: str, port: int, *, path: str, texts: Iterator[str], rate: float) -> None:
        self.outcome = Outcome()
        self._address = (host, port)
        self._path = path
        self._texts = texts
        self._rate = rate
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Send until ``stop`` is called, then wait for the answers due."""
        started = time.perf_counter()
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while not self._stopping.is_set():
            number += 1
            task = asyncio.create_task(self._one(next(self._texts)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(started + number / self._rate - time.perf_counter())
        await asyncio.gather(*tasks)
        for _, writer in self._idle:
            writer.close()

    def stop(self) -> None:
        """End the load."""
        self._stopping.set()

    async def _one(self, text: str) -> None:
        started = time.perf_counter()
        try:
            reader, writer = self._idle.pop(0) if self._idle else await asyncio.open_connection(*self._address)
            writer.write(self._request(text))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            await reader.readexactly(int(headers["content-length"]))
        except (OSError, EOFError):
            self.outcome.statuses["lost"] += 1
            return
        self.outcome.statuses[head[0].split()[1]] += 1
        self.outcome.seconds.append(time.perf_counter() - started)
        if headers.get("connection") == "close" or len(self._idle) >= _MOST_IDLE:
            writer.close()
        else:
            self._idle.append((reader, writer))

    def _request(self, text: str) -> bytes:
        body = json.dumps({"inputs": text}).encode()
        head = f"POST {self._path} HTTP/1.1\r\nhost: load\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
