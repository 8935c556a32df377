"""Two columns, `token tag`, sentences between blank lines: NER in IOB, and POS in UPOS tags."""

import re
from pathlib import Path

from app.errors import DataError
from app.tasks.token_classification import TokenItem
from distill.datasets.base import joined, sentences
from distill.tasks.base import NER_LABELS, UPOS, Example

_COLUMN = re.compile(r"[ \t]+")


def read(path: Path, *, task: str, split: str) -> list[Example]:
    """One example a sentence; a line with a tag and no token is skipped. Raises DataError that names the line.

    NER tags become IOB2 over PER, ORG and LOC, any other type O. Unknown POS tags become X.
    """
    examples: list[Example] = []
    for block in sentences(path):
        words: list[str] = []
        tags: list[str] = []
        for number, line in block:
            if line.startswith("-DOCSTART-"):
                continue
            token, tag = _columns(path, number, line, task)
            if token:
                words.append(token)
                tags.append(tag)
        if words:
            text, spans = joined(words)
            gold = iob2(tags) if task == "ner" else tuple(tag if tag in UPOS else "X" for tag in tags)
            examples.append(Example(TokenItem(text, spans), gold))
    if not examples:
        raise DataError(f"{path} holds no sentence")
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


def _columns(path: Path, number: int, line: str, task: str) -> tuple[str, str]:
    columns = _COLUMN.split(line.strip(" \t"))
    token, tag = " ".join(columns[:-1]), columns[-1]
    if task == "ner" and tag != "O" and not re.fullmatch(r"[BI]-\S+", tag):
        raise DataError(f"{path}:{number} needs the form 'token tag' with a tag like O, B-PER or I-PER, not {tag!r}")
    if task == "pos" and not re.fullmatch(r"[A-Z_]+", tag):
        raise DataError(f"{path}:{number} needs the form 'token tag' with a UPOS tag like NOUN, not {tag!r}")
    return token, tag
