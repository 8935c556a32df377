"""Offsets: where the words of a text are, and spans that a reader would call clean.

Every offset is a half-open range of Unicode code points of the text exactly as received.
"""

from collections.abc import Iterable

import regex

Span = tuple[int, int]

_APOSTROPHES = "'’‘ʼ`"
_MARKS = r"\p{GCB=Extend}\p{GCB=SpacingMark}\u200d"
_LETTER = rf"[[\p{{L}}\p{{N}}_]--\p{{Han}}][{_MARKS}]*"
_HYPHENS = r"\-‐‑"
# A word: letters and digits, joined by single apostrophes, hyphens, dots, and between digits also , : /. An ideograph
# is a word, as is any other visible grapheme cluster. A leading apostrophe belongs to the word (Hausa 'yan) unless the
# run also ends with one, which makes the pair quotation marks.
_WORD = regex.compile(
    rf"""
    (?: (?<!\S)[{_APOSTROPHES}](?=\p{{L}})(?!\S*[{_APOSTROPHES}]\p{{P}}*(?!\S)) )?
    (?: {_LETTER} )+
    (?: (?: [{_APOSTROPHES}{_HYPHENS}.·] | (?<=\p{{N}})[,:/](?=\p{{N}}) ) (?: {_LETTER} )+ )*
    | \p{{Han}}[{_MARKS}]*
    | (?![\s\p{{Cc}}\p{{Cs}}\p{{Zl}}\p{{Zp}}\u200b-\u200f\u2060\ufeff]) \X
    """,
    regex.VERBOSE | regex.VERSION1,
)
_GRAPHEME = regex.compile(r"\X")


def words(text: str) -> tuple[Span, ...]:
    """The words and punctuation marks of ``text``: sorted, apart, without white space, on grapheme boundaries."""
    return tuple(match.span() for match in _WORD.finditer(text))


def trim(text: str, start: int, end: int) -> Span:
    """The span without white space at its ends; (start, start) where it holds nothing else."""
    while start < end and text[end - 1].isspace():
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return start, end


def snap(text: str, spans: Iterable[Span]) -> list[Span]:
    """Each span trimmed of white space, then widened to the grapheme clusters it touches."""
    trimmed = [trim(text, start, end) for start, end in spans]
    if text.isascii():
        return trimmed
    starts = set()
    snapped = []
    for match in _GRAPHEME.finditer(text):
        starts.add(match.start())
    starts.add(len(text))
    for start, end in trimmed:
        while start not in starts:
            start -= 1
        while end > start and end not in starts:
            end += 1
        snapped.append((start, end))
    return snapped
