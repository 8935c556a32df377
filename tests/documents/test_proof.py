"""docs/proof.md: a server with its teacher beside it."""

import re
from collections.abc import Sequence
from pathlib import Path

from tests.app import tiny
from tests.documents.terminal import Said

PAGE = "docs/proof.md"


def prepare(folder: Path) -> None:
    for name in ("model_store", "teachers"):
        tiny.write_bundle(folder / name, "ner", staged=folder / "staged" / name)


def test_student_and_teacher_are_in_memory(said: Sequence[Said]) -> None:
    (_, metrics) = said
    assert sorted(set(re.findall(r'role="(\w+)"', metrics.output))) == ["student", "teacher"]
