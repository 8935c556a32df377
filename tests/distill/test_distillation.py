"""Student and teacher on one batch: who learns, from whom, through which widths."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.bilingual import look
from distill.distillation import Distillation
from distill.objectives.base import Outputs, Sum
from distill.projection import Projection
from distill.student import create, freeze, with_language_model_head
from distill.teacher import load_teacher
from tests.distill import tiny

BATCH = {
    "input_ids": torch.tensor([[5, 9, 4, 30, 31], [7, 4, 40, 1, 1]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([[-100, -100, 12, -100, -100], [-100, 8, -100, -100, -100]]),
    "predicted": torch.tensor([[0, 0, 1, 0, 0], [0, 1, 0, 0, 0]]).bool(),
}


@pytest.fixture
def teacher(tmp_path: Path) -> PreTrainedModel:
    return load_teacher(tiny.tiny_teacher("xlm-roberta", tmp_path, layers=4, hidden=32), attn_implementation="eager")[0]


def distillation(teacher: PreTrainedModel, objective: dict[str, Any], **changes: Any) -> Distillation:
    student = create(teacher, layer_reduction_factor=changes.pop("factor", 2))
    student.set_attn_implementation("eager")
    if "logits" in Sum.of(objective).needs:
        student = with_language_model_head(student, teacher)
    values: dict[str, Any] = {
        "student": student,
        "teachers": [teacher],
        "objective": Sum.of(objective),
        "layers": (1, 3),
        "look": look,
    }
    return Distillation(**{**values, **changes})


def gradients(model: torch.nn.Module) -> list[Tensor]:
    return [value.grad for value in model.parameters() if value.grad is not None and value.grad.abs().sum() > 0]


def test_a_teacher_shows_and_does_not_learn(teacher: PreTrainedModel) -> None:
    loss = distillation(teacher, {"hidden_states": 1.0, "attention": 1.0, "relations": 1.0})
    sum(loss(BATCH).values(), torch.zeros(())).backward()
    assert gradients(loss.student) and not gradients(teacher) and not loss.learners


def test_a_language_model_head_is_the_teachers_and_predicts_like_transformers(teacher: PreTrainedModel) -> None:
    loss = distillation(teacher, {"mlm": 1.0, "logits": {"divergence": "kl"}}, factor=1, layers=(0, 1, 2, 3))
    terms = loss(BATCH)
    inputs = {name: BATCH[name] for name in ("input_ids", "attention_mask", "labels")}
    assert terms["mlm"].item() == pytest.approx(teacher(**inputs).loss.item(), rel=1e-5)
    assert terms["logits"].item() == pytest.approx(0.0, abs=1e-6)


def test_a_student_from_scratch_has_nothing_of_its_teacher_s_language_model_head(teacher: PreTrainedModel) -> None:
    with torch.no_grad():
        teacher.lm_head.bias.normal_()
    student = create(teacher, layer_reduction_factor=2, initialization="random")
    model = with_language_model_head(student, teacher, initialization="random")
    theirs = dict(teacher.named_parameters())
    head = {name: value for name, value in model.named_parameters() if name.startswith("lm_head.")}
    matrices = [name for name, value in head.items() if value.ndim == 2]
    assert matrices and not any(torch.equal(head[name], theirs[name]) for name in [*matrices, "lm_head.bias"])
    assert model.get_output_embeddings().weight is student.get_input_embeddings().weight


def test_gold_alone_asks_for_no_pass_of_the_teacher(teacher: PreTrainedModel) -> None:
    def student_alone(model: PreTrainedModel, batch: Any, needs: frozenset[str]) -> Outputs:
        assert model is not teacher
        return look(model, batch, needs)

    assert distillation(teacher, {"mlm": 1.0}, look=student_alone)(BATCH)["mlm"] > 0


def test_in_co_training_each_learns_from_gold_and_from_what_the_other_says(teacher: PreTrainedModel) -> None:
    for module in teacher.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    both = {"mlm": 1.0, "logits": {"divergence": "kl", "squared": True, "temperature": 2.0}}
    loss = distillation(teacher, both, teacher_objective=Sum.of(both))
    with torch.no_grad():
        for value in loss.student.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    terms = loss(BATCH)
    assert set(terms) == {"mlm", "logits", "teacher mlm", "teacher logits"} and list(loss.learners) == ["teachers"]
    terms["logits"].backward()
    assert gradients(loss.student) and not gradients(teacher)
    loss.student.zero_grad()
    loss(BATCH)["teacher logits"].backward()
    assert gradients(teacher) and not gradients(loss.student)
    shown = {id(m): look(m, BATCH, frozenset({"logits"})).logits[0].double() / 2 for m in (loss.student, teacher)}
    log_s, log_t = (shown[id(m)].log_softmax(-1) for m in (loss.student, teacher))
    expected = 4 * (log_s.exp() * (log_s - log_t)).sum(-1).mean().item()
    assert terms["teacher logits"].item() == pytest.approx(expected, rel=1e-3)


def test_a_narrow_student_is_compared_at_the_teachers_width_and_its_maps_learn(teacher: PreTrainedModel) -> None:
    student = create(teacher, layer_reduction_factor=2, hidden_size_reduction_factor=2)
    projection = Projection.between(student, teacher)
    assert projection is not None
    loss = distillation(
        teacher, {"hidden_states": 1.0, "cosine": 1.0, "relations": 1.0}, student=student, projection=projection
    )
    sum(loss(BATCH).values(), torch.zeros(())).backward()
    assert len(gradients(projection)) == 3 and "projection" in loss.learners
    # the map of the embeddings starts as the best one there is
    narrow, wide = (cast(Tensor, m.get_input_embeddings().weight) for m in (student, teacher))
    residual = wide - narrow @ projection.maps[0]
    torch.testing.assert_close(narrow.T @ residual, torch.zeros(16, 32), atol=1e-4, rtol=0)
    assert Projection.between(teacher, teacher) is None


def test_frozen_parts_keep_out_of_the_gradient(teacher: PreTrainedModel) -> None:
    loss = distillation(teacher, {"hidden_states": 1.0})
    freeze(loss.student, ["embeddings", "layer_norm"])
    loss(BATCH)["hidden_states"].backward()
    moved = [name for name, value in loss.student.named_parameters() if value.grad is not None]
    assert moved and not [name for name in moved if "embeddings" in name or "LayerNorm" in name]


def test_a_layer_map_of_another_student_is_refused(teacher: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="layer map"):
        replace(distillation(teacher, {"hidden_states": 1.0}), layers=(1, 4))
