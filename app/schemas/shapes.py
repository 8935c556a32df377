"""Which request each task takes, and what answers it, for those who are handed a task's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from app.schemas.dp import DpRequest, ParsedWord
from app.schemas.ner import Entity, NerRequest
from app.schemas.nli import Label, NliRequest
from app.schemas.pos import PosRequest, Word
from app.schemas.qa import AnswerSpan, QaRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A task's request, the fields of one input (a single one is the input itself), and the type of one answer."""

    request: Any
    fields: tuple[str, ...]
    answer: Any


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "ner": Shape(request=NerRequest, fields=("text",), answer=list[Entity]),
        "pos": Shape(request=PosRequest, fields=("text",), answer=list[Word]),
        "dp": Shape(request=DpRequest, fields=("text",), answer=list[ParsedWord]),
        "nli": Shape(request=NliRequest, fields=("text", "text_pair"), answer=list[Label]),
        "qa": Shape(request=QaRequest, fields=("question", "context"), answer=AnswerSpan),
    }
)
