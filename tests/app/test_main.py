"""The command itself, in a process of its own."""

import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from app.main import main
from app.settings import Settings
from tests.app import tiny
from tests.app.live import Running, running, wait_until_ready
from tests.patience import PATIENCE_S, get, post, until


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Running]:
    with running(store, "--lang", "ha") as process:
        wait_until_ready(process.url)
        yield process


def test_lang_limits_what_is_served(server: Running) -> None:
    models = get(f"{server.url}/v1/models").json()["models"]
    assert [model["task"] for model in models] == ["dp", "ner", "nli", "pos", "qa"]
    assert post(f"{server.url}/v1/sw/ner", json={"inputs": "a"}).status_code == 404


def test_sigterm_turns_readiness_off_and_answers_every_request_of_the_drain(store: Path) -> None:
    with running(store, "--tasks", "ner", "--lang", "ha", "--drain-delay-s", "5") as server:
        wait_until_ready(server.url)
        before = threading.Event()

        def send() -> list[int]:
            """Statuses until the server has said twice that it is leaving."""
            statuses, n_last = [], 0
            while n_last < 2:
                response = post(f"{server.url}/v1/ha/ner", json={"inputs": tiny.SENTENCE})
                statuses.append(response.status_code)
                before.set()
                n_last += response.headers.get("connection") == "close"
            return statuses

        with ThreadPoolExecutor() as senders:
            sent = [senders.submit(send) for _ in range(3)]
            assert before.wait(PATIENCE_S)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: get(f"{server.url}/readyz").status_code == 503)
            assert get(f"{server.url}/readyz").json() == {"ready": False, "draining": True, "loading": []}
            assert get(f"{server.url}/livez").status_code == 200
            assert {status for future in sent for status in future.result()} == {200}
        assert server.process.wait(PATIENCE_S) == 0


def test_a_second_sigterm_ends_the_process_at_once(store: Path) -> None:
    with running(store, "--tasks", "ner", "--lang", "ha", "--drain-delay-s", "600") as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: get(f"{server.url}/readyz").json()["draining"])
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == -signal.SIGTERM


HANGS = """
import sys, time
from app import main
from app.store import ModelStore

if sys.argv.pop(1) == "opening":
    ModelStore.open = lambda *args: time.sleep(3600)
else:
    from app.engines.onnx import Engine
    run = Engine.run
    Engine.run = lambda self, inputs: time.sleep(3600) if inputs["input_ids"].shape == (1, 11) else run(self, inputs)
sys.exit(main.main(sys.argv[1:]))
"""


def test_sigterm_ends_a_server_that_is_still_loading(store: Path) -> None:
    with running(store, "--drain-delay-s", "0", program=("-c", HANGS, "opening")) as server:
        assert get(f"{server.url}/livez").status_code == 200
        assert get(f"{server.url}/readyz").status_code == 503
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0


def test_an_engine_that_hangs_does_not_keep_the_process_from_ending(store: Path) -> None:
    flags = ("--drain-delay-s", "0", "--drain-timeout-s", "1", "--tasks", "ner", "--lang", "ha")
    with running(store, *flags, program=("-c", HANGS, "running")) as server:
        wait_until_ready(server.url)
        late = post(f"{server.url}/v1/ha/ner", json={"inputs": "isa " * 9}, headers={"x-request-timeout-ms": "1000"})
        assert late.status_code == 504
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 1


def test_a_request_begun_before_the_end_is_answered_after_it(store: Path) -> None:
    with running(store, "--tasks", "ner", "--lang", "ha", "--drain-delay-s", "0") as server:
        wait_until_ready(server.url)
        body = json.dumps({"inputs": tiny.SENTENCE}).encode()
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/ha/ner HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:5])
            get(f"{server.url}/livez")
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx2.TransportError):
                while True:
                    get(f"{server.url}/livez")
            connection.sendall(body[5:])
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert server.process.wait(PATIENCE_S) == 0


def test_an_altered_bundle_ends_the_server_with_1(tmp_path: Path, store: Path) -> None:
    altered = tmp_path / "store"
    shutil.copytree(store, altered)
    (altered / "ha" / "ner" / "1" / "model.onnx").write_bytes(b"x")
    with running(altered, "--tasks", "ner") as server:
        assert server.process.wait(PATIENCE_S) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lang", "xx"], "unknown language 'xx'; choose from: ha, sw"),
        (["--tasks", "nre"], "unknown task 'nre'; choose from: dp, ner, nli, pos, qa"),
        (["--port", "x"], "--port"),
        (["--store", "/nowhere/at/all"], "/nowhere/at/all is not a folder"),
    ],
)
def test_a_configuration_that_cannot_be_used_ends_at_once_with_2(
    flags: list[str], message: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", str(store), *flags]) == 2
    assert message in capsys.readouterr().err


def test_help_shows_examples_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    assert "bistil-serve --lang ha" in told and "Exit codes: 0" in told and "BISTIL_TOKEN_BUDGET" in told


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_printed_completion_is_a_script_that_knows_every_flag(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in script for name in Settings.model_fields)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--print-completion", "bash"])
    ask = 'COMP_WORDS=(bistil-serve --shadow-t) COMP_CWORD=1; _shtab_bistil_serve; echo "${COMPREPLY[@]}"'
    script = f"{capsys.readouterr().out}\n{ask}\n"
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"--shadow-teacher", "--shadow-time-share"}
