"""Named entities, in the shape of Hugging Face's token classification."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.base import Json, StrideParameters, Text, TextRequest
from app.tasks.token_classification import Entity as Group
from app.tasks.token_classification import Tag, TokenClassification, TokenItem, TokenPrediction, entities
from app.text import positions


class NerParameters(StrideParameters):
    """Which pieces of a word are read, and which labels are left out.

    ``none`` gives one object a word; the others join the words of an entity. ``simple`` and ``first`` read a word at
    its first piece, where the models are trained, ``average`` and ``max`` at all its pieces.
    """

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: list[Text] = Field(default=["O"])


class NerRequest(TextRequest):
    """One text, or several."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Shugaba Bola Tinubu ya isa birnin Kano."}]})

    parameters: NerParameters = NerParameters()

    def changes(self, codec: TokenClassification) -> dict[str, Any]:
        """The stride and which pieces of a word are read."""
        strategy = self.parameters.aggregation_strategy
        pooling = {"pooling": strategy} if strategy in ("average", "max") else {}
        return super().changes(codec) | pooling

    def item(self, value: str) -> TokenItem:
        """The text."""
        return TokenItem(value)

    def render(self, value: str, prediction: TokenPrediction) -> Json:
        """A flat list."""
        ignore = self.parameters.ignore_labels
        found: Sequence[Tag | Group]
        if self.parameters.aggregation_strategy == "none":
            key, found = "entity", [tag for tag in prediction.words if tag.label not in ignore]
        else:
            key, found = "entity_group", entities(value, prediction, ignore=ignore)
        place = positions(value, self.parameters.offset_unit)
        return [
            {key: part.label, "score": part.score, "word": value[part.start : part.end]}
            | {"start": place[part.start], "end": place[part.end]}
            for part in found
        ]


class Entity(BaseModel):
    """``word`` is the text from ``start`` to ``end``; ``entity`` is a tag where none are grouped."""

    entity_group: str | None = None
    entity: str | None = None
    score: float
    word: str
    start: int
    end: int
