"""Inference between two texts, in the shape of Hugging Face's text classification."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from app.schemas.base import SOME, WHOLE, Closed, Json, TaskRequest, Text, kind
from app.tasks.sequence_classification import ClassPrediction, PairItem


class PairInput(Closed):
    """A premise and its hypothesis."""

    text: Text
    text_pair: Text | None = None


TextPair = Annotated[list[Text], Field(min_length=2, max_length=2)]
Pair = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[PairInput, Tag("<object>")] | Annotated[TextPair, Tag("<list>")],
    Discriminator(kind, custom_error_type="no_input", custom_error_message="should be a text or a pair of texts"),
]
OneOrMorePairs = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[PairInput, Tag("<object>")] | Annotated[list[Pair], Tag("<list>"), SOME],
    Discriminator(kind, custom_error_type="no_input", custom_error_message="should be texts or pairs of texts"),
]


class NliParameters(Closed):
    """The best ``top_k`` labels, null for all, and what makes scores of the model's logits."""

    top_k: Annotated[int, Field(ge=1), WHOLE] | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None


class NliRequest(TaskRequest):
    """A pair as an object or as ``[["premise", "hypothesis"]]``, a plain text, or several of any of these."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": {"text": "Yara suna wasa a gida.", "text_pair": "Yara na barci."}}]}
    )

    inputs: OneOrMorePairs
    parameters: NliParameters = NliParameters()

    def texts_of(self, value: str | PairInput | list[str]) -> Iterator[str]:
        """The premise, and the hypothesis where there is one."""
        item = self.item(value)
        yield item.text
        if item.text_pair is not None:
            yield item.text_pair

    def item(self, value: str | PairInput | list[str]) -> PairItem:
        """The pair."""
        if isinstance(value, str):
            return PairItem(value)
        if isinstance(value, PairInput):
            return PairItem(value.text, value.text_pair)
        return PairItem(*value)

    def render(self, value: object, prediction: ClassPrediction) -> Json:
        """Labels, best first."""
        scores = prediction.scores_by(self.parameters.function_to_apply or "softmax")
        return ranked(scores)[: self.parameters.top_k]

    def answer(self, predictions: Sequence[ClassPrediction]) -> Json:
        """A list for each input; nested for a single one too, as Hugging Face's client reads it."""
        return [self.render(*pair) for pair in zip(self.values, predictions, strict=True)]


class Label(BaseModel):
    """A label and its score."""

    label: str
    score: float


def ranked(scores: dict[str, float]) -> list[dict[str, Json]]:
    """Labels as they are sent, best first."""
    return [{"label": label, "score": score} for label, score in sorted(scores.items(), key=lambda pair: -pair[1])]
