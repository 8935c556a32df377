"""README.md: its commands against the embedded store, and its flags against the programs'."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.documents.blocks import ROOT
from tests.documents.terminal import Said

PAGE = "README.md"
SENTENCE = "Kungiyar kwallon kafa ta Arsenal ta doke Chelsea a birnin London."


def prepare(folder: Path) -> None:
    shutil.copytree(ROOT / "model_store" / "ha", folder / "model_store" / "ha")
    (folder / "corpus.jsonl").write_text(json.dumps({"id": 7, "text": SENTENCE}) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def requests(said: Sequence[Said]) -> dict[str, Said]:
    curls = [one for one in said if one.block.text.startswith("curl")]
    found = {re.findall(r"/v1/ha/(\w+)", one.block.text)[0]: one for one in curls}
    assert len(found) == len(curls)
    return found


def test_each_embedded_task_is_asked_once(requests: dict[str, Said]) -> None:
    assert set(requests) == {path.name for path in (ROOT / "model_store" / "ha").iterdir()}


@pytest.mark.parametrize("task", ["ner", "pos", "nli", "qa"])
def test_each_request_is_answered_as_the_page_says(requests: dict[str, Said], task: str) -> None:
    one = requests[task]
    answer, body = json.loads(one.output), json.loads(one.block.text.split("-d '")[1].strip().rstrip("'"))["inputs"]
    if task == "ner":
        assert {entity["word"]: entity["entity_group"] for entity in answer} == {
            "Arsenal": "ORG",
            "Chelsea": "LOC",
            "London": "LOC",
        }
    if task == "pos":
        assert [body[word["start"] : word["end"]] for word in answer] == re.findall(r"\w+|[^\w\s]", body)
    if task == "nli":
        scores = {entry["label"]: entry["score"] for entry in answer[0]}
        assert set(scores) == {"entailment", "neutral", "contradiction"} and sum(scores.values()) == pytest.approx(1)
    if task == "qa":
        found = answer[0] if isinstance(answer, list) else answer
        assert found["answer"] == body["context"][found["start"] : found["end"]] == "1942"


def test_the_bulk_command_annotates_a_file(said: Sequence[Said]) -> None:
    (bulk,) = (one for one in said if "app.annotate" in one.block.text)
    assert bulk.status == 0 and "complete: 1 records" in bulk.output
