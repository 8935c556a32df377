"""What is recorded on the way equals what transformers computes by other means."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from distill.observation import attention_to_show, observe, token_logits
from tests.distill import tiny

INPUTS = {
    "input_ids": torch.tensor([[5, 9, 12, 30, 31], [7, 8, 40, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}
EVERYTHING = frozenset({"hidden_states", "attentions", "queries_keys_values"})


def model(family: str, folder: Path) -> Any:
    source = tiny.tiny_teacher(family, folder, layers=2)
    return AutoModelForMaskedLM.from_pretrained(source, attn_implementation=attention_to_show(EVERYTHING)).eval()


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_queries_and_keys_give_the_maps_that_the_model_used(family: str, tmp_path: Path) -> None:
    shown = observe(model(family, tmp_path).base_model, INPUTS, EVERYTHING).shown
    unseen = (INPUTS["attention_mask"] == 0)[:, None, None, :]
    for queries, keys, attention in zip(shown.queries, shown.keys, shown.attentions, strict=True):
        scores = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
        torch.testing.assert_close(scores.masked_fill(unseen, -math.inf).softmax(-1), attention)


def test_debertas_vectors_are_those_of_the_content(tmp_path: Path) -> None:
    deberta = model("deberta-v2", tmp_path).base_model
    shown = observe(deberta, INPUTS, EVERYTHING).shown
    first = deberta.encoder.layer[0].attention.self
    expected = first.value_proj(shown.hidden_states[0]).unflatten(2, (2, -1)).transpose(1, 2)
    torch.testing.assert_close(shown.values[0], expected)
    assert [tuple(q.shape) for q in shown.queries] == [(2, 2, 5, 16)] * 2


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_token_logits_at_some_positions_are_the_models_own(family: str, tmp_path: Path) -> None:
    whole = model(family, tmp_path)
    output = observe(whole.base_model, INPUTS, frozenset()).output
    chosen = INPUTS["attention_mask"].bool()
    torch.testing.assert_close(
        token_logits(whole, output.last_hidden_state[chosen]), whole(**INPUTS).logits[chosen], atol=1e-5, rtol=1e-5
    )


def test_nothing_stays_hooked(tmp_path: Path) -> None:
    bert = model("bert", tmp_path).base_model
    observe(bert, INPUTS, EVERYTHING)
    assert not any(module._forward_hooks for module in bert.modules() if isinstance(module, torch.nn.Linear))
    assert observe(bert, INPUTS, frozenset()).shown.queries == ()
