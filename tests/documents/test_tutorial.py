"""docs/tutorial.md, from its first command to its last, with a teacher of random weights and sentences made here."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.distill.tiny import tiny_teacher
from tests.documents.blocks import blocks
from tests.documents.terminal import Said

PAGE = "docs/tutorial.md"
PEOPLE = ("Chikondi Banda", "Thandiwe Phiri", "Mphatso", "Limbani Mwale", "Kondwani", "Tiyamike")
PLACES = ("Blantyre", "Zomba", "Lilongwe", "Mzuzu", "Kasungu", "Dedza")
CHICHEWA = ("{n} anapita ku {p} dzulo .", "Mphunzitsi anakumana ndi {n} ku {p} .", "{p} ndi mzinda waukulu .")
ENGLISH = ("{n} went to {p} yesterday .", "The teacher met {n} in {p} .", "{p} is a large city .")

pytestmark = pytest.mark.slow


def prepare(folder: Path) -> None:
    """Raw text of both languages, labels in one file for the one and in two for the other, and the teacher."""
    dice = random.Random(0)
    for language, templates in (("ny", CHICHEWA), ("en", ENGLISH)):
        made = [sentence(dice, templates) for _ in range(2000)]
        put(folder / "raw" / f"{language}.txt", "".join(f"{number} {text(one)}\n" for number, one in enumerate(made)))
        labelled = ["".join(f"{word} {tag}\n" for word, tag in one) for one in made[:150]]
        if language == "ny":
            put(folder / "labels.conll", "\n".join(labelled))
        else:
            put(folder / "data/ner/en/train.conll", "\n".join(labelled[:120]))
            put(folder / "data/ner/en/dev.conll", "\n".join(labelled[120:]))
    tiny_teacher("xlm-roberta", folder / "model_store" / "mmt-mini", layers=6, positions=128)


def test_the_labels_are_dealt_into_three_parts(said: Sequence[Said]) -> None:
    assert re.findall(r"(\w+)\.conll: (\d+)", one(said, "deal.py").output) == [
        ("test", "50"),
        ("dev", "15"),
        ("train", "85"),
    ]


def test_what_is_wrong_is_told_as_the_page_shows_it(said: Sequence[Said]) -> None:
    page = blocks(PAGE)
    failed = [entry for entry in said if entry.status == 2]
    assert len(failed) == 2
    for entry in failed:
        shown = page[page.index(entry.block) + 1].text
        assert re.sub(r":\d+ ", ":N ", entry.output).split() == re.sub(r":\d+ ", ":N ", shown).split()


def test_both_students_are_built_scored_and_whole(said: Sequence[Said]) -> None:
    built = [entry for entry in said if "distill build" in entry.block.text and entry.status == 0]
    assert ["labels in en, ny" in entry.output for entry in built] == [False, False, True]
    assert all("speed-up" in entry.output and "│ ner" in entry.output for entry in built)
    assert "no zero-shot transfer" in (page := one(said, "card.md").output) and "| zero-shot student |" in page
    assert len(re.findall(r"^store/ny/ner/\d: ok$", one(said, "verify").output, re.MULTILINE)) == 2


def test_the_student_is_served(said: Sequence[Said]) -> None:
    asked = next(entry for entry in said if entry.block.text.startswith("curl"))
    question = "Chikondi Banda anapita ku Blantyre."
    assert all(question[found["start"] : found["end"]] == found["word"] for found in json.loads(asked.output))
    assert isinstance(json.loads(asked.output), list)


def test_the_live_proof_counts_pairs(said: Sequence[Said]) -> None:
    told = one(said, "bistil_shadow").output
    assert float(re.findall(r'pairs_total{[^}]*mode="single"[^}]*} (\S+)', told)[0]) >= 1


def one(said: Sequence[Said], mark: str) -> Said:
    return next(entry for entry in said if mark in entry.block.text)


def sentence(dice: random.Random, templates: Sequence[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for part in dice.choice(templates).split():
        if part == "{n}":
            words = dice.choice(PEOPLE).split()
            found += zip(words, ("B-PER", "I-PER"), strict=False)
        else:
            found.append((dice.choice(PLACES), "B-LOC") if part == "{p}" else (part, "O"))
    return found


def text(words: Sequence[tuple[str, str]]) -> str:
    return " ".join(word for word, _ in words)


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
