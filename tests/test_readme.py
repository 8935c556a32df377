"""The README's commands, run as they are written, against the embedded store."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.annotate import __main__ as annotate
from app.settings import Settings
from tests.app.live import running, wait_until_ready
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```bash[^\n]*\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
CURLS = [block.strip() for block in BLOCKS if block.startswith("curl")]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The README's server, on a free port in place of its own; gives the address."""
    serve = next(block for block in BLOCKS if "bistil-serve --lang ha" in block and "docker" not in block)
    command = shlex.split(serve.split("&&")[-1])
    with running(ROOT / "model_store", *command[1:]) as process:
        wait_until_ready(process.url)
        yield process.url.removeprefix("http://")
        process.process.terminate()
        assert process.process.wait(PATIENCE_S) == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's requests need curl")
@pytest.mark.parametrize("command", CURLS, ids=lambda command: re.findall(r"/v1/ha/(\w+)", command)[0])
def test_each_request_of_the_readme_is_answered(server: str, command: str) -> None:
    here = command.replace("localhost:8000", server)
    answer = json.loads(subprocess.run(["sh", "-c", here], check=True, capture_output=True, text=True).stdout)
    body = json.loads(command.split("-d '")[1].rstrip("'"))["inputs"]
    task = re.findall(r"/v1/ha/(\w+)", command)[0]
    if task == "ner":
        assert {entity["entity_group"]: entity["word"] for entity in answer} == {"ORG": "Arsenal", "LOC": "London"}
    if task == "pos":
        assert [body[word["start"] : word["end"]] for word in answer] == re.findall(r"\w+|[^\w\s]", body)
    if task == "nli":
        scores = {entry["label"]: entry["score"] for entry in answer[0]}
        assert set(scores) == {"entailment", "neutral", "contradiction"} and sum(scores.values()) == pytest.approx(1)
    if task == "qa":
        found = answer[0] if isinstance(answer, list) else answer
        assert found["answer"] == body["context"][found["start"] : found["end"]] == "1942"


def test_the_readme_asks_for_each_task_once_where_the_server_listens() -> None:
    assert len(CURLS) == 4
    assert all(f" localhost:{Settings.read().port}/" in command for command in CURLS)


def test_the_distill_command_of_the_readme_is_one_the_parser_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run where there is no data, it says which files it needs: it got past the arguments and the preset."""
    distill = pytest.importorskip("distill.__main__")
    command = next(block for block in BLOCKS if "-m distill build" in block)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert distill.main(shlex.split(command)[3:]) == 2
    assert "data/ner/en" in capsys.readouterr().err


def test_the_bulk_command_of_the_readme_annotates_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = next(block for block in BLOCKS if "-m app.annotate" in block)
    text = json.loads(CURLS[0].split("-d '")[1].rstrip("'"))["inputs"]
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"id": 7, "text": text}) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert annotate.main([*shlex.split(command)[3:], "--store", str(ROOT / "model_store"), "--workers", "1"]) == 0
    record = json.loads((tmp_path / "tagged.jsonl").read_text(encoding="utf-8"))
    assert (record["id"], [entity["word"] for entity in record["ner"]]) == (7, ["Arsenal", "Chelsea", "London"])
