"""The published document against its server: schemathesis sends what the document allows and what it does not."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from tests.app import tiny
from tests.app.conftest import open_all
from tests.app.live import listening
from tests.patience import PATIENCE_S, get

SERVED = {"language": ["ha"], "task": ["ner"], "model": ["ha-ner", "ha-qa"], "version": ["1"]}
# a deadline of the caller's own may be one that nobody can meet, and no schema can say that strings are to be JSON
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]

[[operations]]
include-path-regex = "/infer$"
checks.positive_data_acceptance.enabled = false
"""
ARGUMENTS = (
    "--phases=examples,coverage,fuzzing",
    "--max-examples=20",
    "--seed=1",
    "--generation-deterministic",
    "--no-color",
    f"--request-timeout={PATIENCE_S}",
    "--suppress-health-check=too_slow",
)


@pytest.mark.slow
@pytest.mark.parametrize("keys", ["", f"{hashlib.sha256(b'bude').hexdigest()} ha"], ids=["open", "keys"])
def test_schemathesis_finds_nothing(tmp_path: Path, keys: str) -> None:
    """The document is the published one with the names of what is served filled in, so that its requests arrive."""
    store = tmp_path / "store"
    for task in tiny.TASKS:
        tiny.write_bundle(store, task, staged=tmp_path / task, max_length=512)
    settings = Settings.read(store=str(store), threads=1, max_inputs=1000, keys=keys)  # the schema knows no limit
    with listening(settings, open_all(store, settings)) as server:
        document = get(f"{server.url}/openapi.json").json()
        for operations in document["paths"].values():
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    if parameter["in"] == "path":
                        parameter["schema"]["enum"] = SERVED[parameter["name"]]
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
        command = [sys.executable, "-m", "schemathesis.cli", "run", str(file), f"--url={server.url}", *ARGUMENTS]
        command += ["-H", "Authorization: Bearer bude"] if keys else []
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
    assert f"Tested: {sum(map(len, document['paths'].values()))}" in done.stdout
