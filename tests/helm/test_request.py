"""The request that `helm test` sends and that the notes show: what the first task takes, answered by a real server."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from app.schemas.shapes import SHAPES
from tests.app.live import running, wait_until_ready
from tests.helm.chart import CHART, one, render, text


def asked(values: dict[str, Any]) -> tuple[list[str], str]:
    """The command of `helm test`, and the one of the notes."""
    (container,) = one(render(values), "Pod")["spec"]["containers"]
    (curl,) = re.findall(r"^  (curl .*)$", text(values)["templates/NOTES.txt"], re.MULTILINE)
    return [*container["command"], *container["args"]], curl


@pytest.mark.parametrize("task", SHAPES)
def test_helm_test_and_the_notes_send_what_the_first_task_takes(task: str) -> None:
    test, curl = asked({"config": {"tasks": [task, "ner"]}, "test": {"text": "Ta doke Chelsea a 'Landan'."}})
    *_, url, body = test
    assert url == f"http://demo-bistil:80/v1/ha/{task}"
    request = SHAPES[task].request.model_validate_json(body)
    assert set(request.texts_of(request.inputs)) == {"Ta doke Chelsea a 'Landan'."}
    words = shlex.split(curl)
    assert (words[2], words[-1]) == (f"localhost:8000/v1/ha/{task}", body)


def test_the_first_languages_own_tasks_are_asked_for() -> None:
    languages = {"ha": {"enabled": True, "config": {"tasks": ["pos"]}}}
    test, curl = asked({"layout": "perLanguage", "config": {"tasks": ["ner"]}, "languages": languages})
    assert test[-2] == "http://demo-bistil-ha:80/v1/ha/pos"
    assert "localhost:8000/v1/ha/pos " in curl


def test_without_tasks_one_is_asked_for_that_every_language_of_the_image_has() -> None:
    store = CHART.parent / "model_store"
    (*_, url, _), _ = asked({})
    languages = {path.parts[-4] for path in store.glob("*/*/*/manifest.json")}
    assert len(languages) > 1
    task = url.rpartition("/")[2]
    assert languages == {path.parts[-4] for path in store.glob(f"*/{task}/*/manifest.json")}


@pytest.mark.slow
def test_the_requests_of_helm_test_and_of_the_notes_are_answered_with_the_key_alone(tmp_path: Path) -> None:
    served = {"ner": "ha", "pos": "ha", "nli": "ha", "qa": "ha", "dp": "pcm"}
    (tmp_path / "keys").write_text(f"{hashlib.sha256(b'secret').hexdigest()} ha,pcm\n", "utf-8")
    flags = ("--lang", "ha", "--lang", "pcm", "--keys-file", str(tmp_path / "keys"))

    def run(command: list[str], key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KEY": key})

    with running(CHART.parent / "model_store", *flags) as server:
        address = server.url.removeprefix("http://")
        wait_until_ready(server.url)
        for task, language in served.items():
            languages = {"ha": {"enabled": language == "ha"}, language: {"enabled": True}}
            secrets = {"apiKeys": {"existingSecret": "keys"}, "test": {"existingSecret": "key"}}
            test, curl = asked({**secrets, "config": {"tasks": [task]}, "languages": languages})
            test = [sys.executable, *(word.replace("demo-bistil:80", address) for word in test[1:])]
            notes = ["sh", "-c", curl.replace("localhost:8000", address)]
            refused, tested, answered = run(test, "guess"), run(test, "secret"), run(notes, "secret")
            assert refused.returncode != 0 and "401" in refused.stderr
            assert tested.returncode == 0, tested.stderr
            assert json.loads(answered.stdout) == json.loads(tested.stdout)
            if task == "ner":
                assert {entity["word"] for entity in json.loads(tested.stdout)} >= {"London"}


@contextmanager
def answering(answer: object) -> Iterator[str]:
    """The address of a server that gives this answer to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("start", "status"), [(8, 0), (9, 1)])
def test_helm_test_fails_where_the_text_at_the_offsets_is_another(start: int, status: int) -> None:
    test, _ = asked({"test": {"text": "Ta doke Chelsea."}})
    with answering([{"entity_group": "ORG", "score": 1.0, "word": "Chelsea", "start": start, "end": 15}]) as address:
        command = [sys.executable, *(word.replace("demo-bistil:80", address) for word in test[1:])]
        ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == status, ended.stderr
