"""A reader at a terminal: saves the files of a page, runs its commands in order, leaves servers running meanwhile."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.documents.blocks import ROOT, Block, blocks

_SERVER = re.compile(r"^(\.venv/bin/)?bistil-serve\b.*\Z", re.MULTILINE)
_SHELL = ("bash", "-eo", "pipefail", "-c")
_READERS = {"python": (sys.executable, "-"), "diff": ("git", "apply", "--recount", "-")}
_PORT = re.compile(r"--port (\d+)")


@dataclass(frozen=True, kw_only=True)
class Said:
    """A block that was run, what it printed, and its exit status: None of a server, which still runs."""

    block: Block
    output: str
    status: int | None


def read(page: str, folder: Path) -> list[Said]:
    """Run every block of the page that runs, in `folder`; files say nothing.

    `.venv` there is this environment, and `python` and `bistil-serve` are its own.
    """
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(sys.prefix)
    told = []
    server: subprocess.Popen[bytes] | None = None
    try:
        for block in blocks(page):
            if not block.runs:
                continue
            if "file" in block.options:
                path = folder / block.options["file"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
                continue
            if block.language == "bash" and _SERVER.search(block.text.strip()):
                _stop(server)
                server = _serve(block.text.strip(), folder)
                told.append(Said(block=block, output="", status=None))
            else:
                told.append(_run(block, folder))
    finally:
        _stop(server)
    return told


def _run(block: Block, folder: Path) -> Said:
    is_shell = block.language == "bash"
    done = subprocess.run(
        [*_SHELL, block.text] if is_shell else _READERS[block.language],
        input="" if is_shell else block.text,
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Said(block=block, output=done.stdout, status=done.returncode)


def _serve(command: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the block, whose last line is the server, and wait until it is ready."""
    port = found[1] if (found := _PORT.search(command)) else "8000"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*_SHELL, _SERVER.sub(lambda match: f"exec {match[0]}", command)],
            cwd=folder,
            env=_environment(folder),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).close()
            return process
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    _stop(process)
    raise AssertionError(f"no server came of {command!r}: {(folder / 'server.log').read_text()}")


def _stop(server: subprocess.Popen[bytes] | None) -> None:
    if server is None or server.poll() is not None:
        return
    server.terminate()
    assert server.wait(timeout=60) == 0


def _environment(folder: Path) -> dict[str, str]:
    """The programs of this environment, which import this checkout unless the folder holds the package itself."""
    source = folder if (folder / "app").is_dir() else ROOT
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BISTIL_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return inherited | {"PATH": path, "PYTHONPATH": str(source), "NO_COLOR": "1", "COLUMNS": "200"}
