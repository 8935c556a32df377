"""CoNLL-U (Universal Dependencies): words with their UPOS tags, or with their heads and relations."""

from collections.abc import Sequence
from pathlib import Path

from app.errors import DataError
from app.tasks.dependency_parsing import SentenceItem
from app.tasks.token_classification import TokenItem
from distill.datasets.base import joined, sentences
from distill.tasks.base import UD_RELATIONS, UPOS, Arc, Example


def read(path: Path, *, task: str, split: str) -> list[Example]:
    """One example a sentence, of its syntactic words: multiword ranges (3-4) and empty nodes (3.1) are skipped.

    For dp gold is an arc a word, the relation without its subtype and `dep` where it is no universal one; for other
    tasks a tag, `X` where it is no universal one. Raises DataError that names the line.
    """
    examples: list[Example] = []
    for block in sentences(path):
        lines = [(number, _columns(path, number, line)) for number, line in block if not line.startswith("#")]
        rows = [(number, columns) for number, columns in lines if columns[0].isdecimal()]
        if not rows:
            continue
        text, spans = joined([columns[1].strip() for _, columns in rows])
        if task == "dp":
            examples.append(Example(SentenceItem(text, spans), _arcs(path, rows)))
        else:
            tags = tuple(columns[3] if columns[3] in UPOS else "X" for _, columns in rows)
            examples.append(Example(TokenItem(text, spans), tags))
    if not examples:
        raise DataError(f"{path} holds no sentence")
    return examples


def _columns(path: Path, number: int, line: str) -> list[str]:
    columns = line.split("\t")
    if len(columns) != 10:
        raise DataError(f"{path}:{number} needs the 10 tab-separated columns of CoNLL-U, not {len(columns)}")
    return columns


def _arcs(path: Path, rows: Sequence[tuple[int, list[str]]]) -> tuple[Arc, ...]:
    arcs = []
    for place, (number, columns) in enumerate(rows, start=1):
        word, head, relation = columns[0], columns[6], columns[7].partition(":")[0]
        if int(word) != place:
            raise DataError(f"{path}:{number} has the word {word} where {place} was due")
        if not head.isdecimal() or int(head) > len(rows) or int(head) == place:
            raise DataError(f"{path}:{number} needs another word's number or 0 as its head, not {head!r}")
        arcs.append(Arc(int(head), relation if relation in UD_RELATIONS else "dep"))
    if (n_roots := sum(arc.head == 0 for arc in arcs)) != 1:
        raise DataError(f"{path}:{rows[0][0]} begins a sentence with {n_roots} words under the root, not 1")
    return tuple(arcs)
