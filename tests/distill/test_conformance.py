"""What an implementation of BiStil must hold, in eight points, as found wanting in the published code.

1 identity, 2 copy, 3 padding and 8 sizes are here. The others are where their subject is:
4 trimming leaves outputs as they are: test_vocabulary.test_the_trimmed_encoder_gives_the_same_output and
  test_ids_stay_contiguous_and_in_order_after_reload
5 exactly K entries change, the rest is bit-identical, a saved delta gives the logits back: test_sparse
6 every word of a parsed sentence counts whatever the id of padding:
  test_tasks.test_all_three_words_of_a_sentence_are_scored_whatever_the_id_of_padding
7 languages alternate half and half, and the teacher carries that of the batch:
  test_corpus.test_languages_alternate_half_and_half_in_monolingual_batches and
  test_adaptation.test_phase_1_asks_the_teacher_that_carries_the_batch_s_language
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, PretrainedConfig

from distill.bilingual import look
from distill.distillation import Distillation
from distill.objectives.base import Batch, Outputs, Sum
from distill.observation import observe
from distill.student import create, layer_map, with_language_model_head
from distill.tasks.base import training_task
from distill.teacher import load_teacher
from tests.distill import tiny

EVERY_TERM: dict[str, Any] = {
    "hidden_states": 1.0,
    "attention": 1.0,
    "attention_kl": 1.0,
    "attention_scores": 1.0,
    "relations": 1.0,
    "cosine": 1.0,
    "logits": {"divergence": "kl"},
}
IDS = torch.tensor([[5, 9, 4, 30, 31, 33], [7, 4, 40, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def batch_padded_with(filler: int) -> dict[str, Tensor]:
    ids = IDS.where(MASK.bool(), torch.tensor(filler))
    labels = torch.tensor([[-100, 3, -100, 5, -100, -100], [-100, 2, -100, -100, -100, -100]])
    return {"input_ids": ids, "attention_mask": MASK, "labels": labels, "predicted": MASK.bool()}


def phase1(family: str, folder: Path, *, factor: int, objective: dict[str, Any]) -> Distillation:
    teacher, _ = load_teacher(tiny.tiny_teacher(family, folder), attn_implementation="eager")
    student = create(teacher, layer_reduction_factor=factor)
    if family != "deberta-v2":  # whose attention has no other implementation
        student.set_attn_implementation("eager")
    return Distillation(
        student=with_language_model_head(student, teacher),
        teachers=[teacher],
        objective=Sum.of(objective),
        layers=layer_map(4, factor),
        look=look,
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_1_a_student_that_is_its_teacher_has_no_loss(family: str, tmp_path: Path) -> None:
    terms = phase1(family, tmp_path, factor=1, objective=EVERY_TERM)(batch_padded_with(1))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        dict.fromkeys(EVERY_TERM, 0.0), abs=1e-6
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_2_six_layers_of_twelve_are_1_3_5_7_9_11(family: str, tmp_path: Path) -> None:
    teacher: Any = load_teacher(tiny.tiny_teacher(family, tmp_path, layers=12))[0].base_model
    student: Any = create(teacher, layer_reduction_factor=2)
    for layer, source in zip(student.encoder.layer, (1, 3, 5, 7, 9, 11), strict=True):
        theirs = teacher.encoder.layer[source].state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in layer.state_dict().items())
    others = {name: value for name, value in student.state_dict().items() if ".layer." not in name}
    assert others and all(torch.equal(value, teacher.state_dict()[name]) for name, value in others.items())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_3_what_padding_holds_changes_no_term_of_phase_1(family: str, tmp_path: Path) -> None:
    distillation = phase1(family, tmp_path, factor=2, objective={**EVERY_TERM, "mutual_information": 1.0, "mlm": 1.0})
    pad = distillation.teachers[0].config.pad_token_id
    one, other = distillation(batch_padded_with(pad)), distillation(batch_padded_with(50))
    for name, term in one.items():
        torch.testing.assert_close(term, other[name], atol=1e-6, rtol=1e-5, msg=name)


def test_3_what_padding_holds_changes_no_term_of_phase_2(tmp_path: Path) -> None:
    task = training_task("ner")
    source = tiny.tiny_teacher("xlm-roberta", tmp_path)
    options = {"num_labels": len(task.labels), "attn_implementation": "eager"}
    models = [AutoModelForTokenClassification.from_pretrained(source, **options).eval() for _ in range(2)]

    def look(model: Any, batch: Batch, needs: frozenset[str]) -> Outputs:
        seen = observe(model, {name: batch[name] for name in ("input_ids", "attention_mask")}, needs)
        logits = task.distilled_logits(seen.output, dict(batch))
        return replace(seen.shown, logits=logits, loss=task.loss(seen.output, dict(batch)))

    distillation = Distillation(
        student=models[0],
        teachers=[models[1]],
        objective=Sum.of({**EVERY_TERM, "task": 1.0}),
        layers=(0, 1, 2, 3),
        look=look,
    )
    with torch.no_grad():
        for value in models[0].parameters():
            value.add_(0.01)
    one, other = distillation(batch_padded_with(1)), distillation(batch_padded_with(50))
    for name, term in one.items():
        torch.testing.assert_close(term, other[name], atol=1e-6, rtol=1e-5, msg=name)


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
LAYER = 7_087_872
"""Parameters of one layer of a base model: 12 * 768^2 + 13 * 768."""


@pytest.mark.parametrize(
    ("config", "factor", "n_besides_words"),
    [
        (MBERT, 1, 86_041_344),
        (MBERT, 2, 43_514_112),
        (MBERT, 3, 29_338_368),
        (MBERT, 4, 86_041_344 - 9 * LAYER),
        (MBERT, 6, 86_041_344 - 10 * LAYER),
        (XLM_ROBERTA_BASE, 1, 86_042_112),
        (XLM_ROBERTA_BASE, 2, 43_514_880),
        (XLM_ROBERTA_BASE, 3, 29_339_136),
        (XLM_ROBERTA_BASE, 4, 86_042_112 - 9 * LAYER),
        (XLM_ROBERTA_BASE, 6, 86_042_112 - 10 * LAYER),
        (MDEBERTA_V3_BASE, 1, 85_450_752),
        (MDEBERTA_V3_BASE, 2, 42_923_520),
        (MDEBERTA_V3_BASE, 3, 28_747_776),
        (MDEBERTA_V3_BASE, 6, 85_450_752 - 10 * LAYER),
    ],
    ids=lambda v: v.model_type if isinstance(v, PretrainedConfig) else str(v),
)
def test_8_parameter_counts_are_those_worked_out_by_hand(
    config: PretrainedConfig, factor: int, n_besides_words: int
) -> None:
    with torch.device("meta"):
        student = create(AutoModel.from_config(config), layer_reduction_factor=factor)
    assert student.num_parameters() == 768 * config.vocab_size + n_besides_words


def test_8_half_the_width_makes_a_quarter_of_each_matrix() -> None:
    with torch.device("meta"):
        teacher = AutoModel.from_config(XLM_ROBERTA_BASE)
        student = create(teacher, layer_reduction_factor=2, hidden_size_reduction_factor=2, initialization="random")
    vectors = 514 + 1 + 2  # positions, the one type, the norm
    pooler = 384 * 385
    assert student.num_parameters() == 384 * (250_002 + vectors) + 6 * (12 * 384**2 + 13 * 384) + pooler
