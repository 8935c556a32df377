"""Where phase 2 starts."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distill import build as building
from distill import recipe
from tests.distill.test_methods import SMALL

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
