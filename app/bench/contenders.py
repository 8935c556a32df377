"""The servers that are compared: each a process of its own that stands still while another is measured."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from app.bench.load import Body
from app.errors import EngineError

_PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """How to start a server on a port that is appended to ``command``, and where it answers."""

    name: str
    command: tuple[str, ...]
    path: str
    loads: tuple[str, ...]


class Running:
    """A started contender."""

    def __init__(self, contender: Contender, *, log: IO[str]) -> None:
        self.contender = contender
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{contender.path}"
        self._log = log
        self._process = subprocess.Popen(
            [*contender.command, str(self.port)], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait(self, body: Body) -> None:
        """Until it answers.

        :raises EngineError: it ended, or did not answer for three minutes; the message ends with its last words.
        """
        until = time.monotonic() + _PATIENCE_S
        request = urllib.request.Request(self.url, body.content, {"content-type": "application/json"})
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(request, timeout=_PATIENCE_S):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self._log.seek(0)
        raise EngineError(f"{self.contender.name} does not answer: {self._log.read()[-2000:]}")

    def stop(self) -> None:
        """Let it stand still."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it work again."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def start(contender: Contender) -> Running:
    """Start its process; it need not answer yet."""
    return Running(contender, log=tempfile.TemporaryFile("w+"))


def contenders(folder: Path, *, language: str, task: str, variant: str, threads: int) -> list[Contender]:
    """This server first, then what a user would run instead, on the models that ``distill.random_models`` wrote."""
    python = sys.executable
    options = {"store": folder / "store", "variant": variant, "threads": threads}
    ours = [python, "-m", "app.main", *(f"--{name}={value}" for name, value in options.items()), "--port"]
    everything = ("1", "8", "64", "list")

    def pipeline(name: str, kind: str, model: str, loads: tuple[str, ...]) -> Contender:
        command = (python, "-m", f"app.bench.{kind}_server", str(folder / model), str(threads))
        return Contender(name=name, command=command, path="/predict", loads=loads)

    return [
        Contender(name="bistil-serve", command=tuple(ours), path=f"/v1/{language}/{task}", loads=everything),
        pipeline("FastAPI + pipeline", "fastapi", "student", everything),
        pipeline("LitServe + pipeline", "litserve", "student", everything),
        pipeline("teacher, FastAPI + pipeline", "fastapi", "teacher", ("1", "8", "64")),
    ]


def single(texts: Sequence[str]) -> list[Body]:
    """A request a text."""
    return [Body(content=json.dumps({"inputs": text}).encode(), n_texts=1) for text in texts]


def lists(texts: Sequence[str], *, size: int) -> list[Body]:
    """A request for every ``size`` texts."""
    groups = [list(texts[start : start + size]) for start in range(0, len(texts) - size + 1, size)]
    return [Body(content=json.dumps({"inputs": group}).encode(), n_texts=size) for group in groups]


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
