"""The wire: Hugging Face's task shapes, and this project's own where there is none. Unknown fields are errors."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app import conllu
from app.tasks.dependency_parsing import DependencyParsing, SentenceItem, TreePrediction
from app.tasks.question_answering import AnswerPrediction, QuestionAnswering, QuestionItem
from app.tasks.sequence_classification import ClassPrediction, PairItem, SequenceClassification
from app.tasks.token_classification import Entity as Grouped
from app.tasks.token_classification import Tag, TokenClassification, TokenItem, TokenPrediction, entities


def _paired(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None
    return text


Json = Any
Text = Annotated[str, AfterValidator(_paired)]
Texts = Annotated[list[Text], Field(min_length=1)]
TextPair = Annotated[list[Text], Field(min_length=2, max_length=2)]


class Request(Protocol):
    """What the service needs of a request of any task."""

    @property
    def inputs(self) -> Any:
        """One input, or a list of them."""
        ...

    def texts(self) -> Iterator[str]:
        """Every text of the request."""
        ...

    def items(self) -> Sequence[Any]:
        """One item an input."""
        ...

    def adjust(self, codec: Any) -> Any:
        """The bundle's codec with this request's parameters."""
        ...

    def answer(self, predictions: Sequence[Any]) -> Json:
        """The response body."""
        ...


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NerParameters(_Closed):
    """``stride`` is how many pieces neighbouring windows of a long text share."""

    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "simple"
    ignore_labels: list[str] = ["O"]
    stride: int | None = Field(default=None, ge=0)


class NerRequest(_Closed):
    """One text, or several."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Shugaba Bola Tinubu ya isa birnin Kano."}]})

    inputs: Text | Texts
    parameters: NerParameters = NerParameters()

    def texts(self) -> Iterator[str]:
        """Every text of the request."""
        yield from [self.inputs] if isinstance(self.inputs, str) else self.inputs

    def items(self) -> list[TokenItem]:
        """One item a text."""
        return [TokenItem(text) for text in self.texts()]

    def adjust(self, codec: TokenClassification) -> TokenClassification:
        """The bundle's codec with this request's stride."""
        stride = self.parameters.stride
        return codec if stride is None else dataclasses.replace(codec, stride=stride)

    def answer(self, predictions: Sequence[TokenPrediction]) -> Json:
        """A flat list of entities for one text, a list of such lists for several."""
        answers = [self._entities(text, prediction) for text, prediction in zip(self.texts(), predictions, strict=True)]
        return answers[0] if isinstance(self.inputs, str) else answers

    def _entities(self, text: str, prediction: TokenPrediction) -> list[dict[str, Json]]:
        found: Sequence[Tag | Grouped]
        strategy = self.parameters.aggregation_strategy
        if strategy == "none":
            key, found = "entity", prediction.words
        else:
            key, found = "entity_group", entities(text, prediction, strategy=strategy)
        return [
            {key: part.label, "score": part.score, "word": text[part.start : part.end]}
            | {"start": part.start, "end": part.end}
            for part in found
            if part.label not in self.parameters.ignore_labels
        ]


class PosParameters(_Closed):
    """``stride`` is how many pieces neighbouring windows of a long text share."""

    stride: int | None = Field(default=None, ge=0)


class PosRequest(_Closed):
    """One text, or several."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Yara suna wasa a gida."}]})

    inputs: Text | Texts
    parameters: PosParameters = PosParameters()

    def texts(self) -> Iterator[str]:
        """Every text of the request."""
        yield from [self.inputs] if isinstance(self.inputs, str) else self.inputs

    def items(self) -> list[TokenItem]:
        """One item a text."""
        return [TokenItem(text) for text in self.texts()]

    def adjust(self, codec: TokenClassification) -> TokenClassification:
        """The bundle's codec with this request's stride."""
        stride = self.parameters.stride
        return codec if stride is None else dataclasses.replace(codec, stride=stride)

    def answer(self, predictions: Sequence[TokenPrediction]) -> Json:
        """One object a word, under Universal Dependencies' names; a list of such lists for several texts."""
        answers = [
            [
                {"id": index, "text": text[tag.start : tag.end], "upos": tag.label, "score": tag.score}
                | {"start": tag.start, "end": tag.end}
                for index, tag in enumerate(prediction.words, start=1)
            ]
            for text, prediction in zip(self.texts(), predictions, strict=True)
        ]
        return answers[0] if isinstance(self.inputs, str) else answers


class DpParameters(_Closed):
    """``stride`` is how many pieces neighbouring windows of a long sentence share."""

    stride: int | None = Field(default=None, ge=0)


class DpRequest(_Closed):
    """One text, or several; each may hold several sentences."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Yara suna wasa a gida."}]})

    inputs: Text | Texts
    parameters: DpParameters = DpParameters()

    def texts(self) -> Iterator[str]:
        """Every text of the request."""
        yield from [self.inputs] if isinstance(self.inputs, str) else self.inputs

    def items(self) -> list[SentenceItem]:
        """One item a text."""
        return [SentenceItem(text) for text in self.texts()]

    def adjust(self, codec: DependencyParsing) -> DependencyParsing:
        """The bundle's codec with this request's stride."""
        stride = self.parameters.stride
        return codec if stride is None else dataclasses.replace(codec, stride=stride)

    def answer(self, predictions: Sequence[TreePrediction]) -> Json:
        """One object a word, under Universal Dependencies' names; a list of such lists for several texts.

        Unlike CoNLL-U's, ids go on through all sentences of a text, so that the word of id k is the k-th of the list.
        """
        answers = [
            [
                {"id": index + 1, "text": text[word.start : word.end], "head": word.head, "deprel": word.relation}
                | {"score": word.score, "start": word.start, "end": word.end, "sentence": number}
                for number, (first, last) in enumerate(prediction.sentences, start=1)
                for index, word in enumerate(prediction.words[first:last], start=first)
            ]
            for text, prediction in zip(self.texts(), predictions, strict=True)
        ]
        return answers[0] if isinstance(self.inputs, str) else answers

    def conllu(self, predictions: Sequence[TreePrediction]) -> str:
        """The same as CoNLL-U, a document a text; ids begin again with every sentence."""
        return conllu.render(
            (
                text,
                [
                    [
                        conllu.Line(word.start, word.end, max(word.head - first, 0), word.relation)
                        for word in said.words[first:last]
                    ]
                    for first, last in said.sentences
                ],
            )
            for text, said in zip(self.texts(), predictions, strict=True)
        )


class PairInput(_Closed):
    """A premise and its hypothesis."""

    text: Text
    text_pair: Text | None = None


class NliParameters(_Closed):
    """``top_k`` labels; None gives all of them."""

    top_k: int | None = Field(default=None, ge=1)
    function_to_apply: Literal["softmax"] | None = None


class NliRequest(_Closed):
    """A pair as an object or as ``[["premise", "hypothesis"]]``, a plain text, or several of any of these."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": {"text": "Yara suna wasa a gida.", "text_pair": "Yara na barci."}}]}
    )

    inputs: Text | PairInput | Annotated[list[Text | PairInput | TextPair], Field(min_length=1)]
    parameters: NliParameters = NliParameters()

    def texts(self) -> Iterator[str]:
        """Every text of the request."""
        for item in self.items():
            yield item.text
            if item.text_pair is not None:
                yield item.text_pair

    def items(self) -> list[PairItem]:
        """One item an input."""
        return [_pair(value) for value in (self.inputs if isinstance(self.inputs, list) else [self.inputs])]

    def adjust(self, codec: SequenceClassification) -> SequenceClassification:
        """The bundle's codec, as it is."""
        return codec

    def answer(self, predictions: Sequence[ClassPrediction]) -> Json:
        """A list of labels, best first, for each input; nested for a single one too, as Hugging Face's client reads."""
        ranked = (sorted(prediction.scores.items(), key=lambda pair: -pair[1]) for prediction in predictions)
        return [
            [{"label": label, "score": score} for label, score in scores[: self.parameters.top_k]] for scores in ranked
        ]


class QuestionInput(_Closed):
    """A question and the text that answers it."""

    question: Text = Field(min_length=1)
    context: Text = Field(min_length=1)


class QaParameters(_Closed):
    """``doc_stride`` and ``max_answer_len`` are in pieces."""

    top_k: int = Field(default=1, ge=1, le=100)
    max_answer_len: int = Field(default=30, ge=1, le=512)
    doc_stride: int | None = Field(default=None, ge=0)
    handle_impossible_answer: Literal[False] | None = None
    align_to_words: Literal[False] | None = None


class QaRequest(_Closed):
    """One question about one context, or several such pairs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": {"question": "Ina Bola Tinubu ya isa?", "context": "Bola Tinubu ya isa Kano."}}]
        }
    )

    inputs: QuestionInput | Annotated[list[QuestionInput], Field(min_length=1)]
    parameters: QaParameters = QaParameters()

    def texts(self) -> Iterator[str]:
        """Every text of the request."""
        for value in self._values():
            yield from (value.question, value.context)

    def items(self) -> list[QuestionItem]:
        """One item a question."""
        top_k, max_answer_len = self.parameters.top_k, self.parameters.max_answer_len
        return [
            QuestionItem(value.question, value.context, top_k=top_k, max_answer_len=max_answer_len)
            for value in self._values()
        ]

    def adjust(self, codec: QuestionAnswering) -> QuestionAnswering:
        """The bundle's codec with this request's stride."""
        stride = self.parameters.doc_stride
        return codec if stride is None else dataclasses.replace(codec, stride=stride)

    def answer(self, predictions: Sequence[AnswerPrediction]) -> Json:
        """One object where one answer is asked for, else a list, best first; a list of either for several questions."""
        answers = [self._answers(prediction) for prediction in predictions]
        return answers if isinstance(self.inputs, list) else answers[0]

    def _values(self) -> list[QuestionInput]:
        return self.inputs if isinstance(self.inputs, list) else [self.inputs]

    def _answers(self, prediction: AnswerPrediction) -> Json:
        found = [dataclasses.asdict(answer) for answer in prediction.answers]
        for answer in found:
            answer["answer"] = answer.pop("text")
        if self.parameters.top_k > 1:
            return found
        return found[0] if found else {"answer": "", "score": 0.0, "start": 0, "end": 0}


class Entity(BaseModel):
    """``word`` is the text from ``start`` to ``end``, in code points; ``entity`` is a tag where none are grouped."""

    entity_group: str | None = None
    entity: str | None = None
    score: float
    word: str
    start: int
    end: int


class Word(BaseModel):
    """``text`` is the request's text from ``start`` to ``end``, in code points."""

    id: int
    text: str
    upos: str
    score: float
    start: int
    end: int


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


class Label(BaseModel):
    """A label and its probability."""

    label: str
    score: float


class AnswerSpan(BaseModel):
    """``answer`` is the context from ``start`` to ``end``, in code points."""

    answer: str
    score: float
    start: int
    end: int


class Problem(BaseModel):
    """RFC 9457 problem details; ``instance`` is the request's id. Further members depend on ``type``."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str


class Model(BaseModel):
    """One served model."""

    language: str
    task: str
    revision: int
    variant: str
    precision: str
    labels: list[str]
    scores: dict[str, Any]
    licence: str
    url: str
    card: str
    sha256: str


class Models(BaseModel):
    """What this server serves."""

    models: list[Model]


def _pair(value: str | PairInput | list[str]) -> PairItem:
    if isinstance(value, str):
        return PairItem(value)
    if isinstance(value, PairInput):
        return PairItem(value.text, value.text_pair)
    return PairItem(*value)
