"""Answers as spans of a context, in the shape of Hugging Face's question answering."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from app.schemas.base import SOME, WHOLE, Closed, Json, OffsetParameters, TaskRequest, Text, kind
from app.tasks.question_answering import AnswerPrediction, QuestionAnswering, QuestionItem
from app.text import positions


class QuestionInput(Closed):
    """A question and the text that answers it."""

    question: Text = Field(min_length=1)
    context: Text = Field(min_length=1)


OneOrMoreQuestions = Annotated[
    Annotated[QuestionInput, Tag("<object>")] | Annotated[list[QuestionInput], Tag("<list>"), SOME],
    Discriminator(kind, custom_error_type="no_input", custom_error_message="should be a question with its context"),
]


class QaParameters(OffsetParameters):
    """Lengths and strides are in pieces; those of the model are the most there can be.

    With ``handle_impossible_answer`` an empty answer competes, from 0 to 0; with ``align_to_words`` an answer is
    widened to whole words.
    """

    top_k: Annotated[int, Field(ge=1, le=100), WHOLE] = 1
    max_answer_len: Annotated[int, Field(ge=1, le=512), WHOLE] = 30
    doc_stride: Annotated[int, Field(ge=0), WHOLE] | None = None
    max_seq_len: Annotated[int, Field(ge=32), WHOLE] | None = None
    max_question_len: Annotated[int, Field(ge=16), WHOLE] | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = False


class QaRequest(TaskRequest):
    """One question about one context, or several such pairs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": {"question": "Ina Bola Tinubu ya isa?", "context": "Bola Tinubu ya isa Kano."}}]
        }
    )

    inputs: OneOrMoreQuestions
    parameters: QaParameters = QaParameters()

    @property
    def effort(self) -> float:
        """A longer answer has as many more places to end."""
        return max(self.parameters.max_answer_len / QaParameters().max_answer_len, 1.0)

    def changes(self, codec: QuestionAnswering) -> dict[str, Any]:
        """The lengths and the stride."""
        given = self.parameters
        changes = {"stride": given.doc_stride, "max_question_length": given.max_question_len}
        if given.max_seq_len is not None:
            changes["max_length"] = min(given.max_seq_len, codec.max_length)
        return {name: value for name, value in changes.items() if value is not None}

    def texts_of(self, value: QuestionInput) -> Iterator[str]:
        """The question and its context."""
        yield from (value.question, value.context)

    def item(self, value: QuestionInput) -> QuestionItem:
        """The question and what kind of answer it wants."""
        return QuestionItem(
            value.question,
            value.context,
            top_k=self.parameters.top_k,
            max_answer_len=self.parameters.max_answer_len,
            may_be_impossible=self.parameters.handle_impossible_answer,
            whole_words=self.parameters.align_to_words,
        )

    def render(self, value: QuestionInput, prediction: AnswerPrediction) -> Json:
        """One object where one answer is asked for, else a list, best first."""
        place = positions(value.context, self.parameters.offset_unit)
        found = [
            {"answer": answer.text, "score": answer.score, "start": place[answer.start], "end": place[answer.end]}
            for answer in prediction.answers
        ]
        if self.parameters.top_k > 1:
            return found
        return found[0] if found else {"answer": "", "score": 0.0, "start": 0, "end": 0}


class AnswerSpan(BaseModel):
    """``answer`` is the context from ``start`` to ``end``."""

    answer: str
    score: float
    start: int
    end: int
