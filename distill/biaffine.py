"""The parser's network: an encoder of any family under a biaffine head (Dozat and Manning 2017)."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import (
    BertModel,
    BertPreTrainedModel,
    DebertaV2Model,
    DebertaV2PreTrainedModel,
    PreTrainedModel,
    XLMRobertaModel,
    XLMRobertaPreTrainedModel,
    initialization,
)
from transformers.utils.generic import ModelOutput

from app.errors import UnknownChoice

ARC_SIZE = 256
DEPENDENT_SIZE = 128
HEAD_SIZE = 8
OUTPUTS = ("arc_scores", "relation_dependents", "relation_heads")


@dataclass
class ParserOutput(ModelOutput):
    """Shape: arc_scores (b, n, n), of each piece under each other; relation_dependents (b, n, labels, k);
    relation_heads (b, n, k)."""

    arc_scores: Tensor | None = None
    relation_dependents: Tensor | None = None
    relation_heads: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class Biaffine(nn.Module):
    """Arcs: d_i' U h_j + u' h_j. Relations: x_i' W_r y_j + v_r' x_i + w_r' y_j + b_r, with y of few dimensions, so that
    x_i' [W_r v_r] + [w_r b_r] is small enough to be an output and no pair of pieces has to be gone through.

    Every weight is a linear layer's, which transformers knows how to initialise; the products start at zero, as in the
    paper, so that all heads and labels are equally likely before training.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.n_labels = int(config.num_labels)
        self.arc_dependent = nn.Linear(config.hidden_size, ARC_SIZE)
        self.arc_head = nn.Linear(config.hidden_size, ARC_SIZE)
        self.arc = nn.Linear(ARC_SIZE, ARC_SIZE)
        self.relation_dependent = nn.Linear(config.hidden_size, DEPENDENT_SIZE)
        self.relation_head = nn.Linear(config.hidden_size, HEAD_SIZE)
        self.relation = nn.Linear(DEPENDENT_SIZE, self.n_labels * (HEAD_SIZE + 1))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.activation = nn.LeakyReLU(0.1)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shape: (b, n, hidden) to the three of `ParserOutput`, k being HEAD_SIZE + 1."""
        states = self.dropout(states)
        arc_dependent, arc_head, dependent, head = (
            self.dropout(self.activation(layer(states)))
            for layer in (self.arc_dependent, self.arc_head, self.relation_dependent, self.relation_head)
        )
        arcs = self.arc(arc_dependent) @ arc_head.transpose(1, 2)
        dependents = self.relation(dependent).unflatten(2, (self.n_labels, HEAD_SIZE + 1))
        return arcs, dependents, torch.cat([head, torch.ones_like(head[..., :1])], dim=-1)


class _Parsing:
    """What the three families' parsers share: the encoder's last states through the head."""

    parser: Biaffine

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[misc]
        if isinstance(module, nn.Linear) and module in (self.parser.arc, self.parser.relation):
            initialization.zeros_(module.weight)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ParserOutput:
        """As any transformers model's, but always of named outputs."""
        encoder = cast(PreTrainedModel, self).base_model
        seen: Any = encoder(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        arcs, dependents, heads = self.parser(seen.last_hidden_state)
        return ParserOutput(
            arc_scores=arcs,
            relation_dependents=dependents,
            relation_heads=heads,
            hidden_states=seen.hidden_states,
            attentions=seen.attentions,
        )


class BertForDependencyParsing(_Parsing, BertPreTrainedModel):
    """BERT."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.parser = Biaffine(config)
        self.post_init()  # type: ignore[no-untyped-call]


class XLMRobertaForDependencyParsing(_Parsing, XLMRobertaPreTrainedModel):
    """XLM-RoBERTa."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.roberta = XLMRobertaModel(config, add_pooling_layer=False)
        self.parser = Biaffine(config)
        self.post_init()  # type: ignore[no-untyped-call]


class DebertaV2ForDependencyParsing(_Parsing, DebertaV2PreTrainedModel):
    """DeBERTa-v2 and -v3."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.deberta = DebertaV2Model(config)
        self.parser = Biaffine(config)
        self.post_init()  # type: ignore[no-untyped-call]


class AutoModelForDependencyParsing:
    """The parser of a model folder's family, used as transformers' auto classes are."""

    families: ClassVar[dict[str, type[PreTrainedModel]]] = {
        "bert": BertForDependencyParsing,
        "deberta-v2": DebertaV2ForDependencyParsing,
        "xlm-roberta": XLMRobertaForDependencyParsing,
    }

    @classmethod
    def from_pretrained(cls, folder: Any, *, config: Any, **options: Any) -> PreTrainedModel:
        """The model in `folder`, with a new head where that holds none. Raises UnknownChoice on another family."""
        if config.model_type not in cls.families:
            raise UnknownChoice("teacher family", config.model_type, cls.families)
        return cls.families[config.model_type].from_pretrained(folder, config=config, **options)


__all__ = [
    "OUTPUTS",
    "AutoModelForDependencyParsing",
    "BertForDependencyParsing",
    "Biaffine",
    "DebertaV2ForDependencyParsing",
    "ParserOutput",
    "XLMRobertaForDependencyParsing",
]
