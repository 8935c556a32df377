"""docs/extend.md: its files are put into a copy of the code, whose own tests then pass over them."""

import json
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.distill.tiny import tiny_teacher
from tests.documents import test_tutorial as tutorial
from tests.documents.blocks import ROOT
from tests.documents.terminal import Said

PAGE = "docs/extend.md"
FOOD = {"good": ("Chakudya ndi chabwino", "The food is good"), "bad": ("Chakudya ndi choipa", "The food is bad")}

pytestmark = pytest.mark.slow


def prepare(folder: Path) -> None:
    """A copy of what an editable install reads, text, labels and a teacher of random weights."""
    for name in ("app", "distill", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    dice = random.Random(0)
    for language, templates in (("ny", tutorial.CHICHEWA), ("en", tutorial.ENGLISH)):
        text = [f"{number} {tutorial.text(tutorial.sentence(dice, templates))}\n" for number in range(2000)]
        tutorial.put(folder / "data" / "text" / f"{language}.txt", "".join(text))
        labelled = [
            f"{label}\t{said[language == 'en']} {number}.\n" for number in range(40) for label, said in FOOD.items()
        ]
        for split in ("train", "dev", "test"):
            tutorial.put(folder / "data" / "sentiment" / language / f"{split}.labelled", "".join(labelled))
    tiny_teacher("xlm-roberta", folder / "model_store" / "mmt-mini", layers=6, positions=128)


def test_the_format_is_read(said: Sequence[Said]) -> None:
    assert tutorial.one(said, "datasets.read").output.split() == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]


@pytest.mark.parametrize("name", ["test_objectives", "test_conformance"])
def test_the_folder_s_tests_take_the_new_file(said: Sequence[Said], name: str) -> None:
    assert int(re.findall(r"(\d+) passed", tutorial.one(said, name).output)[0]) >= 3


def test_phase_1_is_trained_with_the_new_objective(said: Sequence[Said]) -> None:
    assert "smooth_l1" in tutorial.one(said, "distill distill").output


def test_the_new_task_is_served(said: Sequence[Said]) -> None:
    ((best, other),) = json.loads(tutorial.one(said, "curl").output)
    assert {best["label"], other["label"]} == {"good", "bad"} and best["score"] + other["score"] == pytest.approx(1)
