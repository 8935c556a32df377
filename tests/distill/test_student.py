from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, GPT2Config, PretrainedConfig

from app.errors import ConfigError, UnknownChoice
from distill.student import create, layer_map, source_name
from distill.teacher import load_teacher
from tests.distill import tiny

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
MBERT = AutoConfig.for_model("bert", vocab_size=119_547, **BASE)
XLM_ROBERTA_BASE = AutoConfig.for_model(
    "xlm-roberta", vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1, **BASE
)
MDEBERTA_V3_BASE = AutoConfig.for_model(
    "deberta-v2",
    vocab_size=251_000,
    relative_attention=True,
    position_buckets=256,
    norm_rel_ebd="layer_norm",
    share_att_key=True,
    pos_att_type=["p2c", "c2p"],
    position_biased_input=False,
    type_vocab_size=0,
    **BASE,
)


@pytest.mark.parametrize(
    ("factor", "strategy", "expected"),
    [
        (1, "regular", tuple(range(12))),
        (2, "regular", (1, 3, 5, 7, 9, 11)),
        (3, "regular", (2, 5, 8, 11)),
        (12, "regular", (11,)),
        (2, "bottom", (0, 1, 2, 3, 4, 5)),
    ],
)
def test_layer_map_of_twelve_layers(factor: int, strategy: str, expected: tuple[int, ...]) -> None:
    assert layer_map(12, factor, strategy) == expected


@pytest.mark.parametrize("factor", [5, 0, -2, 24])
def test_a_factor_that_does_not_divide_names_those_that_do(factor: int) -> None:
    with pytest.raises(ConfigError, match="choose from 1, 2, 3, 4, 6, 12"):
        layer_map(12, factor)


def test_an_unknown_strategy_names_the_choices() -> None:
    with pytest.raises(UnknownChoice, match="regular, bottom"):
        layer_map(12, 2, "top")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_tensor_is_a_copy_of_its_source(family: str, tmp_path: Path) -> None:
    teacher, _ = load_teacher(tiny.tiny_teacher(family, tmp_path, layers=6))
    student = create(teacher, layer_reduction_factor=3)
    source = teacher.base_model.state_dict()
    layers = layer_map(6, 3)
    names = set()
    for name, tensor in student.state_dict().items():
        original = source[source_name(name, layers)]
        assert torch.equal(tensor, original), name
        assert tensor.data_ptr() != original.data_ptr()
        names.add(source_name(name, layers))
    assert {int(n.split(".")[2]) for n in names if n.startswith("encoder.layer.")} == {2, 5}
    assert {n for n in source if ".layer." not in n} <= names


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_factor_of_one_gives_the_teacher_back(family: str, tmp_path: Path) -> None:
    teacher, tokenizer = load_teacher(tiny.tiny_teacher(family, tmp_path))
    student = create(teacher, layer_reduction_factor=1).train()
    batch = tokenizer(list(tiny.HAUSA), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = teacher.base_model(**batch, output_hidden_states=True).hidden_states
        actual = student(**batch, output_hidden_states=True).hidden_states
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_the_saved_config_says_no_dropout_and_the_teacher_keeps_its_own(tmp_path: Path) -> None:
    teacher, _ = load_teacher(tiny.tiny_teacher("bert", tmp_path / "teacher"))
    create(teacher, layer_reduction_factor=2).save_pretrained(tmp_path / "student")
    config = AutoConfig.from_pretrained(tmp_path / "student")
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.num_hidden_layers) == (0, 0, 2)
    assert (teacher.config.hidden_dropout_prob, teacher.config.num_hidden_layers) == (0.1, 4)
    assert AutoModel.from_pretrained(tmp_path / "student", add_pooling_layer=False).config.num_hidden_layers == 2


def test_a_pooler_is_copied_where_there_is_one(tmp_path: Path) -> None:
    teacher = AutoModel.from_pretrained(tiny.tiny_teacher("bert", tmp_path), add_pooling_layer=True)
    student: Any = create(teacher, layer_reduction_factor=2)
    assert torch.equal(student.pooler.dense.weight, teacher.pooler.dense.weight)


@pytest.mark.parametrize(
    ("config", "factor", "n_besides_words"),
    [
        (MBERT, 1, 86_041_344),
        (MBERT, 2, 43_514_112),
        (MBERT, 3, 29_338_368),
        (XLM_ROBERTA_BASE, 1, 86_042_112),
        (XLM_ROBERTA_BASE, 2, 43_514_880),
        (XLM_ROBERTA_BASE, 3, 29_339_136),
        (MDEBERTA_V3_BASE, 1, 85_450_752),
        (MDEBERTA_V3_BASE, 2, 42_923_520),
        (MDEBERTA_V3_BASE, 3, 28_747_776),
    ],
    ids=lambda v: v.model_type if isinstance(v, PretrainedConfig) else str(v),
)
def test_parameter_counts_are_those_worked_out_by_hand(
    config: PretrainedConfig, factor: int, n_besides_words: int
) -> None:
    with torch.device("meta"):
        student = create(AutoModel.from_config(config), layer_reduction_factor=factor)
    assert student.num_parameters() == 768 * config.vocab_size + n_besides_words


def test_another_architecture_names_the_supported_ones() -> None:
    with torch.device("meta"):
        teacher = AutoModel.from_config(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=10))
    with pytest.raises(UnknownChoice, match="xlm-roberta"):
        create(teacher, layer_reduction_factor=2)
