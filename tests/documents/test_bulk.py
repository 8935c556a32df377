"""docs/bulk.md: its command on a file that the test writes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.documents.blocks import ROOT
from tests.documents.terminal import Said

PAGE = "docs/bulk.md"


def prepare(folder: Path) -> None:
    shutil.copytree(ROOT / "model_store" / "ha" / "ner", folder / "model_store" / "ha" / "ner")
    line = json.dumps({"id": 7, "text": "Kungiyar kwallon kafa ta Arsenal ta doke Chelsea a birnin London."})
    (folder / "corpus.jsonl").write_text(line + "\n", encoding="utf-8")


def test_the_file_is_annotated(said: Sequence[Said]) -> None:
    assert [one.status for one in said] == [0] and "complete: 1 records" in said[0].output
