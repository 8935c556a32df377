from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, PreTrainedModel

from app.errors import UnknownChoice
from distill.biaffine import AutoModelForDependencyParsing, Biaffine
from distill.sparse import maskable
from distill.tasks.base import training_task
from distill.teach import open_model
from distill.transfer import copy_head
from tests.distill import tiny


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teachers")
    for family in tiny.FAMILIES:
        tiny.tiny_teacher(family, root / family, layers=1)
    return root


def parser(folder: Path, *, seed: int = 0) -> PreTrainedModel:
    model = open_model(folder, training_task("dp"), dropout=0.0, attn_implementation="eager", seed=seed)
    model.eval()
    return model


def test_the_head_is_the_biaffine_form_of_the_paper() -> None:
    """Dozat and Manning's s = d' U h + h' u and s = d' W_r h + [d; h]' V_r + b_r, the tensors put together here."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", hidden_size=24, num_labels=5, hidden_dropout_prob=0.3)
    head = Biaffine(config).eval().double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    states = torch.randn(2, 6, 24, dtype=torch.float64)
    arcs, dependents, heads = head(states)

    def project(layer: torch.nn.Linear) -> torch.Tensor:
        return torch.nn.functional.leaky_relu(torch.einsum("bni,oi->bno", states, layer.weight) + layer.bias, 0.1)

    d, h = project(head.arc_dependent), project(head.arc_head)
    expected = (
        torch.einsum("bix,yx,bjy->bij", d, head.arc.weight, h) + torch.einsum("bjy,y->bj", h, head.arc.bias)[:, None]
    )
    torch.testing.assert_close(arcs, expected)

    d, h = project(head.relation_dependent), project(head.relation_head)
    weight, bias = head.relation.weight.view(5, 9, 128), head.relation.bias.view(5, 9)
    relations = torch.einsum("bix,ryx,bjy->bijr", d, weight[:, :8], h)
    relations += torch.einsum("bix,rx->bir", d, weight[:, 8])[:, :, None]
    relations += torch.einsum("bjy,ry->bjr", h, bias[:, :8])[:, None] + bias[:, 8]
    torch.testing.assert_close(torch.einsum("birk,bjk->bijr", dependents, heads), relations)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_saved_parser_opens_again_and_a_new_head_follows_the_seed(
    teachers: Path, tmp_path: Path, family: str
) -> None:
    model = parser(teachers / family)
    for name, parameter in model.named_parameters():
        if name.startswith("parser."):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    batch = {"input_ids": torch.arange(12, 32).view(2, 10), "attention_mask": torch.ones(2, 10, dtype=torch.long)}
    with torch.no_grad():
        first, again = model(**batch), parser(tmp_path, seed=1)(**batch)
        fresh, other = (parser(teachers / family, seed=seed)(**batch) for seed in (0, 1))
    for name in ("arc_scores", "relation_dependents", "relation_heads"):
        torch.testing.assert_close(first[name], again[name])
    assert not torch.allclose(fresh.relation_heads, other.relation_heads)
    assert not fresh.arc_scores.any() and not fresh.relation_dependents.any()
    assert first.hidden_states is None and first.attentions is None
    assert again.arc_scores.shape == (2, 10, 10) and again.relation_dependents.shape == (2, 10, 37, 9)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_head_is_dense_and_the_encoder_maskable(teachers: Path, family: str) -> None:
    model = parser(teachers / family)
    names = maskable(model)
    assert names and not any("parser" in name for name in names)
    assert any(name.startswith("parser.") for name, _ in model.named_parameters())
    student = parser(teachers / family, seed=1)
    copy_head(model, student)
    theirs = dict(student.named_parameters())
    copied = [
        torch.equal(value, theirs[name]) for name, value in model.named_parameters() if name.startswith("parser.")
    ]
    assert len(copied) == 12 and all(copied)


def test_the_pooler_that_a_classifier_reads_is_copied_with_it(teachers: Path) -> None:
    task = training_task("nli")
    teacher, student = (
        open_model(teachers / "bert", task, dropout=0.0, attn_implementation="eager", seed=seed) for seed in (0, 1)
    )
    head = [name for name, _ in teacher.named_parameters() if "pooler." in name or name.startswith("classifier.")]
    assert any("pooler" in name for name in head)
    assert not torch.equal(teacher.get_parameter(head[0]), student.get_parameter(head[0]))
    copy_head(teacher, student)
    assert all(torch.equal(teacher.get_parameter(name), student.get_parameter(name)) for name in head)


def test_another_family_is_refused() -> None:
    with pytest.raises(UnknownChoice, match="bert, deberta-v2, xlm-roberta"):
        AutoModelForDependencyParsing.from_pretrained("", config=AutoConfig.for_model("gpt2"))
