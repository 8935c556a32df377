"""The image, built by a real engine and run as a cluster would run it; ``tests/docker/with-engine`` has the engine."""

import json
import os
import re
import shlex
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event

import pytest

from tests.app import tiny
from tests.patience import PATIENCE_S

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif("BISTIL_TEST_DOCKER" not in os.environ, reason="tests/docker/with-engine runs these"),
]
ROOT = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LOCKED_DOWN = "--read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
TEXT = "Kungiyar kwallon kafa ta Arsenal ta doke Chelsea a birnin London."
MAX_BYTES = 600_000_000


def docker(command: str, *more: str, check: bool = True) -> str:
    """Run a docker command; what it says on stdout."""
    arguments = [os.environ["DOCKER"], *shlex.split(command), *more]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{shlex.join(arguments)}: {done.stderr or done.stdout}"
    return done.stdout.strip()


@pytest.fixture(scope="session")
def image() -> str:
    secret = f"--secret id=ca,src={CERTIFICATES}" if CERTIFICATES.exists() else ""
    docker(f"build --network host {secret} --build-arg VERSION=1.2.3 --tag bistil-serve:test", str(ROOT))
    return "bistil-serve:test"


@contextmanager
def container(image: str, *flags: str, options: str = "") -> Iterator[tuple[str, str]]:
    """A locked-down container that serves on a free port: its id, and its URL once it is healthy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = docker(
        f"run --detach --network host {LOCKED_DOWN} --env BISTIL_PORT={port} {options} {image} --host 127.0.0.1", *flags
    )
    try:
        for _ in range(1500):
            state = json.loads(docker("inspect --format", "{{json .State}}", name))
            if state["Health"]["Status"] == "healthy":
                break
            assert state["Running"], docker("logs", name, check=False)
            time.sleep(0.2)
        else:
            pytest.fail(f"not healthy: {state['Health']}")
        yield name, f"http://127.0.0.1:{port}"
    finally:
        docker("rm --force", name)


@pytest.fixture(scope="module")
def server(image: str) -> Iterator[tuple[str, str]]:
    with container(image, "--lang", "ha") as running:
        yield running


def inside(image: str, *command: str) -> subprocess.CompletedProcess[str]:
    arguments = [os.environ["DOCKER"], "run", "--rm", "--network", "none", *shlex.split(LOCKED_DOWN)]
    arguments += ["--entrypoint", command[0], image, *command[1:]]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_is_small(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    n_bytes = int(docker("image inspect --format {{.Size}}", image))
    with capsys.disabled():
        print(f"\nimage: {n_bytes / 1e6:.0f} MB", end=" ")
    assert n_bytes < MAX_BYTES


def test_says_what_it_is(image: str) -> None:
    config = json.loads(docker("image inspect --format", "{{json .Config}}", image))
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert labels["title"] == "bistil-serve"
    assert labels["version"] == "1.2.3"
    assert labels["licenses"] == "Apache-2.0"
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["bistil-serve"]


def test_holds_nothing_that_builds_or_trains(image: str) -> None:
    found = inside(image, "sh", "-c", "command -v gcc cc make git cyclonedx-py; ls /opt/venv/bin/pip /root/.cache/pip")
    assert found.stdout == ""
    script = "print([name for name in ('torch', 'transformers', 'pip', 'onnxruntime') if u.find_spec(name)])"
    modules = inside(image, "python", "-c", f"import importlib.util as u; {script}")
    assert modules.stdout.strip() == "['onnxruntime']"
    shipped = {path.name for path in (ROOT / "model_store").iterdir() if not path.name.startswith("mmt-")}
    assert set(inside(image, "sh", "-c", "ls /srv/model_store").stdout.split()) == shipped


def test_lists_its_parts(image: str) -> None:
    sbom = json.loads(inside(image, "cat", "/opt/venv/sbom.cdx.json").stdout)
    assert sbom["bomFormat"] == "CycloneDX"
    parts = {re.sub("[-_.]+", "-", part["name"]).lower(): part["version"] for part in sbom["components"]}
    locked = dict(
        line.split(" ")[0].split("==")
        for line in (ROOT / "requirements" / "serve.lock").read_text().splitlines()
        if "==" in line and "python_full_version >= '3.12'" not in line
    )
    assert "bistil-serve" in parts
    assert {name: version for name, version in parts.items() if name != "bistil-serve"}.items() <= locked.items()
    assert {"onnxruntime", "tokenizers", "fastapi"} <= parts.keys()


def test_answers_curl_with_hausa_entities(server: tuple[str, str]) -> None:
    _, url = server
    body = json.dumps({"inputs": TEXT})
    command = ["curl", "--silent", f"{url}/v1/ha/ner", "--header", "content-type: application/json", "--data", body]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert {("Arsenal", "ORG"), ("London", "LOC")} <= {(entity["word"], entity["entity_group"]) for entity in said}


def test_runs_as_nobody_and_writes_nowhere_but_tmp(server: tuple[str, str]) -> None:
    name, _ = server
    status = docker(
        "exec", name, "sh", "-c", "id -u; grep -E 'CapEff|NoNewPrivs' /proc/1/status; touch /tmp/a && echo tmp"
    )
    assert status.split() == ["10001", "CapEff:", "0000000000000000", "NoNewPrivs:", "1", "tmp"]
    assert (
        docker("exec", name, "sh", "-c", "touch /srv/a || touch /opt/venv/a || echo read-only", check=False)
        == "read-only"
    )


def test_sigterm_under_load_loses_nothing(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    body, header = json.dumps({"inputs": TEXT}), {"content-type": "application/json"}
    with container(image, "--lang", "ha", "--tasks", "ner") as (name, url):
        host, warm = url.removeprefix("http://"), Event()

        def send() -> Counter[str]:
            """What became of each request, sent until the server has said twice that it is leaving."""
            seen: Counter[str] = Counter()
            connection = HTTPConnection(host, timeout=PATIENCE_S)
            while seen["last"] < 2:
                try:
                    connection.request("POST", "/v1/ha/ner", body, header)
                    answer = connection.getresponse()
                    seen[str(answer.status) if json.loads(answer.read()) else "empty"] += 1
                    seen["last"] += answer.headers.get("connection") == "close"
                except (OSError, HTTPException, ValueError) as error:
                    seen[f"lost: {type(error).__name__}"] += 1
                    seen["last"] += 1
                    connection.close()
                if seen["200"] > 20:
                    warm.set()
            return seen

        with ThreadPoolExecutor(8) as pool:
            senders = [pool.submit(send) for _ in range(8)]
            assert warm.wait(PATIENCE_S)
            docker("kill --signal TERM", name)
            seen = sum((sender.result() for sender in senders), Counter())
        code = docker("wait", name)
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{url}/livez", timeout=2)
    n_last = seen.pop("last")
    with capsys.disabled():
        print(
            f"\nSIGTERM under load: {seen['200']} requests sent and answered, {n_last} of them while leaving", end=" "
        )
    assert set(seen) == {"200"}
    assert code == "0"


def test_serves_another_store_from_a_volume(image: str, tmp_path: Path) -> None:
    store = tiny.write_store(tmp_path, language="sw", tasks=("ner",))
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with (
        container(image, "--store", "/models", options=f"--volume {store}:/models:ro") as (_, url),
        urllib.request.urlopen(f"{url}/v1/models", timeout=PATIENCE_S) as answer,
    ):
        models = json.loads(answer.read())["models"]
    assert [(model["language"], model["task"]) for model in models] == [("sw", "ner")]
