"""How two predictions for one item agree: what each points at, and the kinds of difference between them."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.tasks.token_classification import OUTSIDE, entities

Outcome = Literal["match", "label", "boundary", "missed", "extra"]
OUTCOMES: tuple[Outcome, ...] = ("match", "label", "boundary", "missed", "extra")


@dataclass(frozen=True, slots=True)
class Found:
    """A labelled half-open span of a text."""

    start: int
    end: int
    label: str


def agreement(teacher: Sequence[Found], student: Sequence[Found]) -> Counter[Outcome]:
    """What became of each of the teacher's spans, and ``extra`` for each of the student's that meets none of them.

    ``match`` is the same span and label, ``label`` the same span under another, ``boundary`` an overlap, and ``missed``
    nothing there. Each of the student's spans answers for one of the teacher's at most.
    """
    counts: Counter[Outcome] = Counter()
    left = list(student)

    def settle(waiting: Sequence[Found], outcome: Outcome, fits: Callable[[Found, Found], bool]) -> list[Found]:
        unmet = []
        for wanted in waiting:
            partner = next((found for found in left if fits(wanted, found)), None)
            if partner is None:
                unmet.append(wanted)
            else:
                left.remove(partner)
                counts[outcome] += 1
        return unmet

    rest = settle(teacher, "match", lambda wanted, found: wanted == found)
    rest = settle(rest, "label", lambda wanted, found: (wanted.start, wanted.end) == (found.start, found.end))
    rest = settle(rest, "boundary", lambda wanted, found: wanted.start < found.end and found.start < wanted.end)
    counts["missed"] += len(rest)
    counts["extra"] += len(left)
    return +counts


def token_classification(item: Any, prediction: Any) -> list[Found]:
    """Entities where the labels have an outside, else a tag a word."""
    if any(tag.label == OUTSIDE or tag.label[:2] in ("B-", "I-") for tag in prediction.words):
        return [Found(entity.start, entity.end, entity.label) for entity in entities(item.text, prediction)]
    return [Found(tag.start, tag.end, tag.label) for tag in prediction.words]


def sequence_classification(item: Any, prediction: Any) -> list[Found]:
    """The most probable label, on the whole text."""
    return [Found(0, max(len(item.text), 1), prediction.label)]


def question_answering(item: Any, prediction: Any) -> list[Found]:
    """The best answer."""
    return [Found(answer.start, answer.end, "") for answer in prediction.answers[:1]]


def dependency_parsing(item: Any, prediction: Any) -> list[Found]:
    """A word's head and relation."""
    return [Found(word.start, word.end, f"{word.head} {word.relation}") for word in prediction.words]


FOUND_BY_CODEC: dict[str, Callable[[Any, Any], list[Found]]] = {
    kind.__name__: kind
    for kind in (token_classification, sequence_classification, question_answering, dependency_parsing)
}
"""What a prediction points at, by the codec's name in the manifest."""
