"""Servers on real sockets: the command in a process of its own, and an app in a thread, with any engine in it."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.main import create_app
from app.server import Server
from app.service import Service
from app.settings import Settings
from app.store import Served
from tests.patience import PATIENCE_S, get, until

ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str


@contextmanager
def running(store: Path | str, *flags: str, program: Sequence[str] = ("-m", "app.main")) -> Iterator[Running]:
    """``bistil-serve`` on a free port; the context waits until it listens."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BISTIL_")}
    command = [sys.executable, *program, "--store", str(store), "--port", "0", "--threads", "1", *flags]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)["message"]
            if "running on" in message:
                yield Running(process, message.split("running on ")[1].split(" ")[0])
                break
        else:
            pytest.fail(f"the server ended with {process.wait()}")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_until_ready(url: str) -> None:
    until(lambda: get(f"{url}/readyz").status_code == 200)


@dataclass
class Listening:
    service: Service
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def listening(settings: Settings, served: Sequence[Served]) -> Iterator[Listening]:
    """An app on a free port, served from a thread; the end of the context drains it."""
    app = create_app(settings.model_copy(update={"port": 0}), served=served)
    server = Server.of(app, service=app.state.service, settings=app.state.service.settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        host, port = server.servers[0].sockets[0].getsockname()
        yield Listening(app.state.service, host, port)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
