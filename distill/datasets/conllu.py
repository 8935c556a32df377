"""CoNLL-U (Universal Dependencies): words and UPOS tags."""

from pathlib import Path

from app.errors import DataError
from app.tasks.token_classification import TokenItem
from distill.datasets.base import joined, sentences
from distill.tasks.base import UPOS, Example


def read(path: Path, *, task: str, split: str) -> list[Example]:
    """One example a sentence, of its syntactic words: multiword ranges (3-4) and empty nodes (3.1) are skipped.

    Raises DataError that names the line.
    """
    examples: list[Example] = []
    for block in sentences(path):
        words: list[str] = []
        tags: list[str] = []
        for number, line in block:
            if line.startswith("#"):
                continue
            columns = line.split("\t")
            if len(columns) != 10:
                raise DataError(f"{path}:{number} needs the 10 tab-separated columns of CoNLL-U, not {len(columns)}")
            if columns[0].isdecimal():
                words.append(columns[1].strip())
                tags.append(columns[3] if columns[3] in UPOS else "X")
        if words:
            text, spans = joined(words)
            examples.append(Example(TokenItem(text, spans), tuple(tags)))
    if not examples:
        raise DataError(f"{path} holds no sentence")
    return examples
