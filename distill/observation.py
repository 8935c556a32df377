"""What a forward pass shows the objectives: hidden states, attention maps, queries, keys and values, token logits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from distill.objectives.base import Batch, Outputs

_VECTORS = {"queries": ("query", "query_proj"), "keys": ("key", "key_proj"), "values": ("value", "value_proj")}


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A model's own output beside what was recorded on the way."""

    output: Any
    shown: Outputs


def observe(model: PreTrainedModel, inputs: Mapping[str, Tensor], needs: frozenset[str]) -> Observation:
    """Run `model` once and keep what `needs` names; logits and loss are for the caller to fill in.

    Attention maps are those that the model used, so it must have been loaded with eager attention where they are
    needed.
    """
    with _recording(model, enabled="queries_keys_values" in needs) as vectors:
        output = model(
            **inputs,
            output_hidden_states="hidden_states" in needs,
            output_attentions="attentions" in needs,
        )
    heads = int(model.config.num_attention_heads)
    split = {
        kind: [layers[i].unflatten(2, (heads, -1)).transpose(1, 2) for i in sorted(layers)]
        for kind, layers in vectors.items()
    }
    shown = Outputs(
        hidden_states=output.hidden_states or (),
        attentions=output.attentions or (),
        queries=split.get("queries", ()),
        keys=split.get("keys", ()),
        values=split.get("values", ()),
    )
    return Observation(output=output, shown=shown)


def attention_to_show(needs: frozenset[str]) -> str:
    """The attention implementation that shows what is needed: maps come from the eager one alone."""
    return "eager" if "attentions" in needs else "sdpa"


def token_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """The masked-language model's scores at some positions alone. Shape: states (rows, d) -> (rows, vocabulary)."""
    head: Any = model.lm_head if hasattr(model, "lm_head") else model.cls
    logits: Tensor = head(states)
    return logits


def masked_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Cross-entropy at the masked positions, 0 where there are none; the vocabulary projection is for those alone."""
    batch = {name: value.to(model.device) for name, value in batch.items()}
    seen: Any = model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    chosen = batch["labels"] != -100
    logits = token_logits(model, seen.last_hidden_state[chosen])
    if not chosen.any():
        return logits.float().sum()
    return functional.cross_entropy(logits.float(), batch["labels"][chosen])


@contextmanager
def _recording(model: PreTrainedModel, *, enabled: bool) -> Iterator[dict[str, dict[int, Tensor]]]:
    """The content's projections, layer by layer; DeBERTa sends relative positions through the same ones afterwards."""
    found: dict[str, dict[int, Tensor]] = {kind: {} for kind in _VECTORS} if enabled else {}
    handles = []
    encoder: Any = model.base_model
    for kind, names in _VECTORS.items() if enabled else ():
        for index, layer in enumerate(encoder.encoder.layer):
            attention = layer.attention.self
            linear: nn.Module = next(getattr(attention, name) for name in names if hasattr(attention, name))

            def keep(_module: nn.Module, _inputs: Any, output: Tensor, kind: str = kind, index: int = index) -> None:
                found[kind].setdefault(index, output)

            handles.append(linear.register_forward_hook(keep))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
