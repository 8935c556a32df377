"""Dependency trees: one object a word, under Universal Dependencies' names."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from app import conllu
from app.schemas.base import Json, TextRequest
from app.tasks.dependency_parsing import SentenceItem, TreePrediction
from app.text import positions


class DpRequest(TextRequest):
    """One text, or several; each may hold several sentences."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Yara suna wasa a gida."}]})

    def item(self, value: str) -> SentenceItem:
        """The text."""
        return SentenceItem(value)

    def render(self, value: str, prediction: TreePrediction) -> Json:
        """One object a word.

        Unlike CoNLL-U's, ids go on through all sentences of a text, so that the word of id k is the k-th of the list.
        """
        place = positions(value, self.parameters.offset_unit)
        return [
            {"id": index + 1, "text": value[word.start : word.end], "head": word.head, "deprel": word.relation}
            | {"score": word.score, "start": place[word.start], "end": place[word.end], "sentence": number}
            for number, (first, last) in enumerate(prediction.sentences, start=1)
            for index, word in enumerate(prediction.words[first:last], start=first)
        ]

    def as_conllu(self, predictions: Sequence[TreePrediction]) -> str:
        """The same as CoNLL-U, a document a text; ids begin again with every sentence."""
        return conllu.render(
            (text, self._sentences(said), positions(text, self.parameters.offset_unit))
            for text, said in zip(self.values, predictions, strict=True)
        )

    def _sentences(self, prediction: TreePrediction) -> list[list[conllu.Line]]:
        return [
            [
                conllu.Line(word.start, word.end, head=max(word.head - first, 0), deprel=word.relation)
                for word in prediction.words[first:last]
            ]
            for first, last in prediction.sentences
        ]


class ParsedWord(BaseModel):
    """``head`` is the id of the word it depends on, 0 where it is its sentence's root; ``sentence`` counts from 1."""

    id: int
    text: str
    head: int
    deprel: str
    score: float
    start: int
    end: int
    sentence: int
