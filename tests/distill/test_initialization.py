from typing import Any

import pytest
import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from distill.initialization import BRANCH, OFFSETS, initialize, position_dimensions

WIDTH, HEADS, POSITIONS = 96, 6, 130


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=300,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        initializer_range=0.05,
    )
    model: Any = XLMRobertaForMaskedLM(config).eval()
    model.set_attn_implementation("eager")
    words = torch.randn(300, WIDTH - position_dimensions(WIDTH)).numpy()
    words[7] = 0.0
    initialize(model, words)
    return model


@pytest.mark.parametrize("layer", range(len(OFFSETS)))
def test_a_local_head_looks_at_its_offset_wherever_it_stands(model: Any, layer: int) -> None:
    ids = torch.randint(5, 300, (4, 120), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        attention = model.roberta(ids, output_attentions=True).attentions[layer]
    places = torch.arange(5, 115)
    for head, offset in enumerate(OFFSETS[layer]):
        weights = attention[:, head, places]
        distance = (torch.arange(120)[None] - places[:, None]).float()
        mean = (weights * distance).sum(-1).mean()
        near = weights.gather(-1, (places + offset).expand(4, -1)[..., None]).mean()
        assert abs(float(mean) - offset) < 2.0
        assert float(near) > 10 / 120


def test_position_embeddings_depend_on_distance_alone_and_are_frozen(model: Any) -> None:
    places = model.roberta.embeddings.position_embeddings.weight
    products = places @ places.T
    for distance in (0, 1, 5, 40):
        values = products.diagonal(distance)
        torch.testing.assert_close(values, values[:1].expand_as(values), atol=1e-5, rtol=0)
    assert not places.requires_grad
    assert float(products.diagonal(1)[0]) < float(products.diagonal(0)[0])


def test_words_and_positions_do_not_share_a_dimension(model: Any) -> None:
    own = position_dimensions(WIDTH)
    embeddings = model.roberta.embeddings
    assert not embeddings.word_embeddings.weight[:, :own].any()
    assert not embeddings.position_embeddings.weight[:, own:].any()
    assert embeddings.word_embeddings.weight[7, own:].any(), "an unseen piece keeps its random row"


def test_branches_are_quiet_and_the_other_matrices_have_unit_gain(model: Any) -> None:
    own = position_dimensions(WIDTH)
    layer = model.roberta.encoder.layer[2]
    assert float(layer.intermediate.dense.weight.detach().std()) == pytest.approx(WIDTH**-0.5, rel=0.05)
    for branch in (layer.attention.output.dense, layer.output.dense):
        assert float(branch.weight[own:].detach().std()) == pytest.approx(BRANCH * branch.in_features**-0.5, rel=0.05)
        assert not branch.weight[:own].any()
