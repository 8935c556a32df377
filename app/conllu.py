"""CoNLL-U, the format of Universal Dependencies, for the words of an answer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MEDIA_TYPE = "text/x-conllu"


@dataclass(frozen=True, slots=True)
class Line:
    """The word ``text[start:end]``; ``head`` counts the sentence's words from 1, 0 is the root, None is not said."""

    start: int
    end: int
    head: int | None = None
    deprel: str = "_"
    upos: str = "_"


def render(documents: Iterable[tuple[str, Iterable[Sequence[Line]], Sequence[int]]]) -> str:
    """Each text with the lines of its sentences, as one document a text; a text without words gives none.

    ``TokenRange`` in the last column is a word's half-open range in its text, in the unit that the third part of a
    document gives code points in (``app.text.positions``).
    """
    return "".join(part for number, document in enumerate(documents, start=1) for part in _document(number, *document))


def _document(number: int, text: str, sentences: Iterable[Sequence[Line]], place: Sequence[int]) -> Iterator[str]:
    for sentence, lines in enumerate(sentences, start=1):
        if sentence == 1:
            yield f"# newdoc id = {number}\n"
        yield f"# sent_id = {number}-{sentence}\n"
        yield f"# text = {' '.join(text[lines[0].start : lines[-1].end].split())}\n"
        for index, line in enumerate(lines, start=1):
            head = "_" if line.head is None else str(line.head)
            is_tight = line.end < len(text) and not text[line.end].isspace()
            misc = f"{'SpaceAfter=No|' if is_tight else ''}TokenRange={place[line.start]}:{place[line.end]}"
            columns = (str(index), text[line.start : line.end], "_", line.upos, "_", "_", head, line.deprel, "_", misc)
            yield "\t".join(columns) + "\n"
        yield "\n"
