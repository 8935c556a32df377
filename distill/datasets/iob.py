"""Columns, a token and its tag, sentences between blank lines: NER in IOB, and POS in UPOS tags."""

import logging
import re
from functools import cache
from pathlib import Path

from app.errors import DataError
from app.tasks.token_classification import TokenItem
from distill.datasets.base import joined, sentences
from distill.tasks.base import NER_LABELS, UPOS, Example

_COLUMN = re.compile(r"[ \t]+")
_LEFT_OUT = ("DATE", "MISC")
"""MasakhaNER's and CoNLL's types beside those that are learnt."""

log = logging.getLogger(__name__)


def read(path: Path, *, task: str, split: str) -> list[Example]:
    """One example a sentence; a line with a tag and no token is skipped. Raises DataError that names the line.

    NER tags become IOB2 over PER, ORG and LOC, any other type O. Where all lines of a sentence with such tags have more
    than two columns, and equally many, the token is the first (CoNLL 2003). Unknown POS tags become X.
    """
    examples: list[Example] = []
    types: set[str] = set()
    for block in sentences(path):
        rows = [_columns(path, number, line, task) for number, line in block if not line.startswith("-DOCSTART-")]
        widths = {len(row) for row in rows}
        apart = task == "ner" and len(widths) == 1 and min(widths) > 2
        words: list[str] = []
        tags: list[str] = []
        for *columns, tag in rows:
            if columns:
                words.append(columns[0] if apart else " ".join(columns))
                tags.append(tag)
        types.update(tag[2:] for tag in tags)
        if words:
            text, spans = joined(words)
            gold = iob2(tags) if task == "ner" else tuple(tag if tag in UPOS else "X" for tag in tags)
            examples.append(Example(TokenItem(text, spans), gold))
    if not examples:
        raise DataError(f"{path} holds no sentence")
    if task == "ner" and (unknown := types - {label[2:] for label in NER_LABELS} - set(_LEFT_OUT)):
        _warn(path, ", ".join(sorted(unknown)))
    return examples


def iob2(tags: list[str]) -> tuple[str, ...]:
    """IOB1 or IOB2 tags as IOB2, types other than PER, ORG and LOC as O."""
    found: list[str] = []
    before = "O"
    for tag in tags:
        kind = tag[2:]
        if f"B-{kind}" not in NER_LABELS:
            found.append("O")
        elif tag.startswith("I-") and before[2:] == kind:
            found.append(f"I-{kind}")
        else:
            found.append(f"B-{kind}")
        before = tag
    return tuple(found)


@cache
def _warn(path: Path, types: str) -> None:
    """Once a file, which every stage reads anew."""
    log.warning("%s has names of the types %s, which count as O: those that are learnt are PER, ORG, LOC", path, types)


def _columns(path: Path, number: int, line: str, task: str) -> list[str]:
    columns = _COLUMN.split(line.strip(" \t"))
    tag = columns[-1]
    if task == "ner" and tag != "O" and not re.fullmatch(r"[BI]-\S+", tag):
        raise DataError(f"{path}:{number} needs the form 'token tag' with a tag like O, B-PER or I-PER, not {tag!r}")
    if task == "pos" and not re.fullmatch(r"[A-Z_]+", tag):
        raise DataError(f"{path}:{number} needs the form 'token tag' with a UPOS tag like NOUN, not {tag!r}")
    return columns
