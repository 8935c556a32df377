"""Where phase 2 starts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.errors import DataError
from distill import build as building
from distill import recipe
from distill.delta import SparseDelta
from distill.tasks.base import training_task
from distill.teach import open_model, read_sources
from distill.transfer import begin, transfer
from tests.distill import corpora
from tests.distill.test_methods import SMALL
from tests.distill.tiny import tiny_teacher

STILL = {"student": {"layer_reduction_factor": 2}, "transfer": {"default": {"tuning": {"learning_rate": 0.0}}}}


@pytest.mark.parametrize(
    ("strategy", "copied"),
    [("bottom", {"0": "0", "1": "1"}), ("spread", {"0": "0", "1": "3"}), ("regular", {"0": "1", "1": "3"})],
)
@pytest.mark.parametrize("start", ["task_change", "task_teacher"])
def test_a_student_starts_with_the_tuning_of_the_layers_that_were_copied_for_it_whatever_it_is_compared_with(
    place: Path, start: str, strategy: str, copied: dict[str, str]
) -> None:
    places = {"teacher": str(place / "teacher"), "data": place / "data", "pool": place / "pool"}
    how = {"student": {"strategy": strategy}, "transfer": {"default": {"start": start}}}
    build = recipe.read(
        "quick", [SMALL, STILL, {"method": "best-third", "out": place / start / strategy, **places}, how]
    )
    assert build.student.alignment == "regular"
    for run in (building.trim, building.student, building.phase1):
        run(build)
    building.task_teacher(build, "pos")
    building.task_student(build, "pos")
    folder = build.folder
    ended, bilingual, tuned, untuned = (
        load_file(folder / stage / "model" / "model.safetensors")
        for stage in ("pos/transfer", "distill", "pos/teach", "trim")
    )
    name = "encoder.layer.{}.output.dense.weight"
    for own, theirs in copied.items():
        expected = tuned[f"roberta.{name.format(theirs)}"]
        if start == "task_change":
            expected = bilingual[name.format(own)] + expected - untuned[f"roberta.{name.format(theirs)}"]
        torch.testing.assert_close(ended[f"roberta.{name.format(own)}"], expected)


def test_what_the_task_teacher_carried_before_it_was_tuned_is_no_tuning(tmp_path: Path) -> None:
    untuned = tiny_teacher("xlm-roberta", tmp_path, layers=2)
    name = "roberta.encoder.layer.1.output.dense.weight"
    student, teacher = (
        open_model(untuned, training_task("pos"), dropout=0.0, attn_implementation="eager", seed=1) for _ in range(2)
    )
    before = {key: value.clone() for key, value in student.state_dict().items()}
    sft = SparseDelta(sparse={name: (torch.arange(40), torch.ones(40))}, dense={})
    sft.apply(teacher)
    begin(student, teacher, "task_change", copied=(0, 1), untuned=untuned, sfts=(sft,))
    assert all(torch.allclose(value, before[key], atol=1e-6) for key, value in student.state_dict().items())
    begin(student, teacher, "task_change", copied=(0, 1), untuned=untuned)
    assert float((student.state_dict()[name] - before[name]).sum()) == pytest.approx(40, rel=1e-3)


@pytest.mark.parametrize("start", ["task_change", "task_teacher"])
def test_phase_2_starts_on_whatever_device_the_models_are(start: str, tmp_path: Path) -> None:
    untuned = tiny_teacher("xlm-roberta", tmp_path, layers=2)
    student, teacher = (
        open_model(untuned, training_task("pos"), dropout=0.0, attn_implementation="eager", seed=1) for _ in range(2)
    )
    for model in (student, teacher):
        torch.nn.Module.to(model, "meta")
    begin(student, teacher, start, copied=(0, 1), untuned=untuned)
    assert {value.device.type for value in student.parameters()} == {"meta"}


def test_no_unlabelled_text_is_told_as_what_it_is(tmp_path: Path) -> None:
    model = tiny_teacher("xlm-roberta", tmp_path / "model", layers=2)
    corpora.write(tmp_path / "data")
    phase = recipe.read("compare", [{"tgt": "ha", "method": "bistil-unlabelled"}]).phase2("pos")
    data = read_sources("pos", tmp_path / "data", ("en",), target="ha", max_examples=8, max_dev=4)
    with pytest.raises(DataError, match="the target's text has no sentence of four words"):
        transfer(
            *(model, model, data), phase=phase, layers=(0, 1), copied=(0, 1), folder=tmp_path / "work", untuned=model
        )
