"""Offsets: where the words and sentences of a text are, and spans that a reader would call clean.

Every offset is a half-open range of Unicode code points of the text exactly as received; ``positions`` gives them in
another unit.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import regex

Span = tuple[int, int]
OffsetUnit = Literal["codepoint", "utf16", "utf8"]

_APOSTROPHES = "'’‘ʼ`"
_MARKS = r"\p{GCB=Extend}\p{GCB=SpacingMark}\u200d"
_LETTER = rf"[[\p{{L}}\p{{N}}_]--\p{{Han}}][{_MARKS}]*"
_HYPHENS = r"\-‐‑"
_CLUSTER = rf"(?: \p{{Regional_Indicator}}{{1,2}}+[{_MARKS}]*+ | \X )"  # \X, which counts all the flags before each one
# A word: letters and digits, joined by single apostrophes, hyphens, dots, and between digits also , : /. An ideograph
# is a word, as is any other visible grapheme cluster. A leading apostrophe belongs to the word (Hausa 'yan) unless the
# run also ends with one, which makes the pair quotation marks. Each part takes time in proportion to the text.
_WORD = regex.compile(
    rf"""
    (?: (?<!\S)[{_APOSTROPHES}](?=\p{{L}})(?!\S*+(?<=[{_APOSTROPHES}]\p{{P}}*)) )?
    (?: {_LETTER} )+
    (?: (?: [{_APOSTROPHES}{_HYPHENS}.·] | (?<=\p{{N}})[,:/](?=\p{{N}}) ) (?: {_LETTER} )+ )*
    | \p{{Han}}[{_MARKS}]*
    | (?![\s\p{{Cc}}\p{{Cs}}\p{{Zl}}\p{{Zp}}\u200b\u200e\u200f\u2060\ufeff])
      (?! (?<=[\u200c\u200d])[\u200c\u200d] | [\u200c\u200d]++(?![{_MARKS}]) )
      (?: \p{{GCB=Prepend}}+(?=\s) | {_CLUSTER} )
    """,
    regex.VERBOSE | regex.VERSION1,
)
_GRAPHEME = regex.compile(_CLUSTER, regex.VERBOSE)
_SPACE = regex.compile(r"\s+")
_TERMINAL = regex.compile(r"[\p{Sentence_Terminal}…]")
_CLOSER = regex.compile(r"[\p{Pe}\p{Pf}\"']")
_BLANK_LINE = regex.compile(r"\R[^\S\r\n]*\R|\p{Zp}")
_INITIAL = regex.compile(r"\p{Lu}\p{M}*|Alh|Col|Dr|Engr|Gen|Gov|Hon|Lt|Mr|Mrs|Ms|Prof|Rev|Sen|Sgt|St")


def words(text: str) -> tuple[Span, ...]:
    """The words and punctuation marks of ``text``: sorted, apart, without white space, on grapheme boundaries."""
    return tuple([match.span() for match in _WORD.finditer(text)])


def sentences(text: str, spans: Sequence[Span], *, longest: int = 256) -> list[tuple[int, int]]:
    """The sentences of ``text``, as half-open ranges of the words at ``spans``; every word is in exactly one.

    One ends at terminal punctuation with the quotes and brackets that close on it, unless a small letter follows; at
    a full stop only before white space and not after an initial or a title (``B. Tinubu``, ``Dr. Musa``); at a blank
    line; and after ``longest`` words, since what works on whole sentences has to be bounded.
    """
    found = []
    first = 0
    for index in range(1, len(spans)):
        if index - first >= longest or _begins_sentence(text, spans, index, first=first):
            found.append((first, index))
            first = index
    if spans:
        found.append((first, len(spans)))
    return found


def trim(text: str, start: int, end: int) -> Span:
    """The span without white space at its ends; (start, start) where it holds nothing else."""
    while start < end and text[end - 1].isspace():
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return start, end


def snap(text: str, spans: Iterable[Span]) -> list[Span]:
    """Each span trimmed of white space, then widened to the grapheme clusters it touches.

    White space is always a boundary, also where a mark without a letter follows it.
    """
    trimmed = [trim(text, start, end) for start, end in spans]
    if text.isascii():
        return trimmed
    starts = {match.start() for match in _GRAPHEME.finditer(text)} | {len(text)}
    for match in _SPACE.finditer(text):
        starts.update(match.span())
    snapped = []
    for start, end in trimmed:
        while start not in starts:
            start -= 1
        while end > start and end not in starts:
            end += 1
        snapped.append((start, end))
    return snapped


def positions(text: str, unit: OffsetUnit = "codepoint") -> Sequence[int]:
    """For each code point of ``text``, and for its end, how many units of ``unit`` come before it."""
    if unit == "codepoint" or text.isascii():
        return range(len(text) + 1)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points > 0xFFFF).astype(np.int64)
    if unit == "utf8":
        sizes += (points > 0x7F).astype(np.int64) + (points > 0x7FF)
    counted: list[int] = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    return counted


def _begins_sentence(text: str, spans: Sequence[Span], index: int, *, first: int) -> bool:
    """Whether the word at ``index`` begins a sentence, given that the one before it began at ``first``."""
    start, end = spans[index]
    gap = text[spans[index - 1][1] : start]
    if _BLANK_LINE.search(gap):
        return True
    last = index - 1
    while last > first and _CLOSER.fullmatch(text, *spans[last]) and spans[last - 1][1] == spans[last][0]:
        last -= 1
    if not _TERMINAL.fullmatch(text, *spans[last]) or text[start].islower() or _TERMINAL.fullmatch(text, start, end):
        return False
    if not gap and (_CLOSER.fullmatch(text, start, end) or text[slice(*spans[last])] == "."):
        return False
    named = last > first and spans[last - 1][1] == spans[last][0] and _INITIAL.fullmatch(text, *spans[last - 1])
    return not (text[slice(*spans[last])] == "." and named)
