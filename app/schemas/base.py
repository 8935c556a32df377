"""What the requests of all tasks share. An unknown field or a value of another type is an error, never a guess."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from app.text import OffsetUnit


def paired(text: str) -> str:
    """The text, which JSON's escapes may have left with half of a surrogate pair: that is a ValueError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None
    return text


def _whole(value: Any) -> Any:
    """JSON knows numbers alone, so that 3.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def kind(value: Any) -> str | None:
    """Which branch of a union of a text, an object and a list a value is for, so that an error is told of one alone."""
    if isinstance(value, str):
        return "<text>"
    return "<list>" if isinstance(value, list) else "<object>" if isinstance(value, dict | BaseModel) else None


TAGS = ("<text>", "<object>", "<list>")
Json = Any
WHOLE = BeforeValidator(_whole)  # after the bounds, or the published document lacks them
Text = Annotated[str, AfterValidator(paired)]
SOME = Field(min_length=1, fail_fast=True)
"""Of a list of inputs: it has one, and the first that is wrong is told of, not each of a hundred thousand."""
Texts = Annotated[list[Text], SOME]
OneOrMoreTexts = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[Texts, Tag("<list>")],
    Discriminator(kind, custom_error_type="no_input", custom_error_message="should be a text or a list of texts"),
]


class Closed(BaseModel):
    """Something a client sends."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself, since nothing changes it: pydantic copies a default for every request."""
        return self


class OffsetParameters(Closed):
    """``offset_unit`` is what ``start`` and ``end`` count: code points, or UTF-16 or UTF-8 code units."""

    offset_unit: OffsetUnit = "codepoint"


class StrideParameters(OffsetParameters):
    """``stride`` is how many pieces neighbouring windows of a long text share."""

    stride: Annotated[int, Field(ge=0), WHOLE] | None = None


class TaskRequest(Closed):
    """One input or a list of them. A task says which texts an input has, what item it is and what answers it."""

    inputs: Any

    @property
    def values(self) -> list[Any]:
        """The inputs, as a list also where there is one alone."""
        return self.inputs if isinstance(self.inputs, list) else [self.inputs]

    @property
    def n_items(self) -> int:
        """How many items there are, without making them."""
        return len(self.values)

    @property
    def effort(self) -> float:
        """What a character of this request takes, times what one usually does."""
        return 1.0

    def pointer(self, index: int) -> str:
        """Where in the body the input of this index is."""
        return f"/inputs/{index}" if isinstance(self.inputs, list) else "/inputs"

    def items(self) -> list[Any]:
        """The items of all inputs, in order."""
        return [self.item(value) for value in self.values]

    def answer(self, predictions: Sequence[Any]) -> Json:
        """The response body: one input's answer, or the list of them for a list."""
        answers = [self.render(*pair) for pair in zip(self.values, predictions, strict=True)]
        return answers if isinstance(self.inputs, list) else answers[0]

    def adjust(self, codec: Any) -> Any:
        """The bundle's codec with this request's parameters."""
        changes = self.changes(codec)
        return dataclasses.replace(codec, **changes) if changes else codec

    def changes(self, codec: Any) -> dict[str, Any]:
        """The codec's fields that this request sets otherwise."""
        return {}

    def texts_of(self, value: Any) -> Iterator[str]:
        """The texts of one input."""
        raise NotImplementedError

    def item(self, value: Any) -> Any:
        """What the codec reads for one input."""
        raise NotImplementedError

    def render(self, value: Any, prediction: Any) -> Json:
        """The answer to one input."""
        raise NotImplementedError


class TextRequest(TaskRequest):
    """One text, or several."""

    inputs: OneOrMoreTexts
    parameters: StrideParameters = StrideParameters()

    def changes(self, codec: Any) -> dict[str, Any]:
        """The stride, where one is given."""
        return {} if self.parameters.stride is None else {"stride": self.parameters.stride}

    def texts_of(self, value: str) -> Iterator[str]:
        """The text itself."""
        yield value
