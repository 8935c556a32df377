"""Classification under labels that the client names, by a model of inference: does the text entail "this is ..."?"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field

from app.errors import InvalidInput
from app.schemas.base import Closed, Json, OneOrMoreTexts, TaskRequest, Texts, paired
from app.schemas.nli import ranked
from app.tasks.base import log_softmax
from app.tasks.sequence_classification import ClassPrediction, PairItem, SequenceClassification

_ONE_PLACE = r"^([^{]|\{+[^{}])*\{+\}([^{]|\{+[^{}])*\{*$"


def _distinct(labels: list[str]) -> list[str]:
    if len(set(labels)) < len(labels):
        raise ValueError("a label is named twice")
    return labels


class ZeroShotParameters(Closed):
    """``{}``, once in ``hypothesis_template``, stands for a label; with ``multi_label`` each label is judged alone, as
    one that has no other always is."""

    candidate_labels: Annotated[Texts, AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]
    hypothesis_template: Annotated[str, Field(pattern=_ONE_PLACE), AfterValidator(paired)] = "This example is {}."
    multi_label: bool = False


class ZeroShotRequest(TaskRequest):
    """One text, or several, and the labels to choose from."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": "An ci kwallo uku a wasan jiya.",
                    "parameters": {"candidate_labels": ["wasanni", "siyasa"], "hypothesis_template": "Wannan {} ne."},
                }
            ]
        }
    )

    inputs: OneOrMoreTexts
    parameters: ZeroShotParameters

    @property
    def n_items(self) -> int:
        """A pair for each text and label."""
        return len(self.values) * len(self.parameters.candidate_labels)

    def changes(self, codec: SequenceClassification) -> dict[str, Any]:
        """None.

        :raises InvalidInput: the model does not tell entailment from contradiction.
        """
        if {"entailment", "contradiction"} <= set(codec.labels):
            return {}
        raise InvalidInput(f"zero-shot needs a model of entailment and contradiction; this one has {codec.labels}")

    def texts_of(self, value: str) -> Iterator[str]:
        """The text and every hypothesis."""
        yield value
        yield from self._hypotheses()

    def items(self) -> list[PairItem]:
        """A pair for each text and label."""
        return [PairItem(value, hypothesis) for value in self.values for hypothesis in self._hypotheses()]

    def answer(self, predictions: Sequence[ClassPrediction]) -> Json:
        """A flat list of labels, best first, for one text, a list of such lists for several."""
        n = len(self.parameters.candidate_labels)
        answers = [self.render(value, predictions[n * k : n * k + n]) for k, value in enumerate(self.values)]
        return answers if isinstance(self.inputs, list) else answers[0]

    def render(self, value: str, prediction: Sequence[ClassPrediction]) -> Json:
        """The labels' shares of entailment; with ``multi_label``, or one label, entailment against contradiction."""
        entailment = np.asarray([said.logits["entailment"] for said in prediction])
        if self.parameters.multi_label or len(prediction) == 1:
            contradiction = np.asarray([said.logits["contradiction"] for said in prediction])
            scores = np.exp(log_softmax(np.stack([entailment, contradiction], axis=1)))[:, 0]
        else:
            scores = np.exp(log_softmax(entailment))
        return ranked(dict(zip(self.parameters.candidate_labels, scores.tolist(), strict=True)))

    def _hypotheses(self) -> Iterator[str]:
        template = self.parameters.hypothesis_template
        return (template.replace("{}", label) for label in self.parameters.candidate_labels)
