"""Parts of speech: one object a word, under Universal Dependencies' names."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from app import conllu
from app.schemas.base import Json, TextRequest
from app.tasks.token_classification import TokenItem, TokenPrediction
from app.text import positions, sentences


class PosRequest(TextRequest):
    """One text, or several."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Yara suna wasa a gida."}]})

    def item(self, value: str) -> TokenItem:
        """The text."""
        return TokenItem(value)

    def render(self, value: str, prediction: TokenPrediction) -> Json:
        """One object a word."""
        place = positions(value, self.parameters.offset_unit)
        return [
            {"id": index, "text": value[tag.start : tag.end], "upos": tag.label, "score": tag.score}
            | {"start": place[tag.start], "end": place[tag.end]}
            for index, tag in enumerate(prediction.words, start=1)
        ]

    def as_conllu(self, predictions: Sequence[TokenPrediction]) -> str:
        """The same as CoNLL-U, a document a text."""
        return conllu.render(
            (text, self._sentences(text, said), positions(text, self.parameters.offset_unit))
            for text, said in zip(self.values, predictions, strict=True)
        )

    def _sentences(self, text: str, prediction: TokenPrediction) -> list[list[conllu.Line]]:
        lines = [conllu.Line(tag.start, tag.end, upos=tag.label) for tag in prediction.words]
        return [lines[first:last] for first, last in sentences(text, [(line.start, line.end) for line in lines])]


class Word(BaseModel):
    """``text`` is the request's text from ``start`` to ``end``."""

    id: int
    text: str
    upos: str
    score: float
    start: int
    end: int
