"""The bundles that a build's last stage publishes: the student's, and the teacher's beside it."""

from pathlib import Path
from typing import Any

import pytest

from app.bundle import Bundle, revisions
from app.predictor import Predictor
from distill import datasets
from distill.__main__ import main
from distill.evaluate import judge, predictions
from distill.tasks.base import training_task

ADAPTED = (
    "adapted=true",
    "adapt.schedule.steps=4",
    "adapt.schedule.learning_rate=0.05",
    "adapt.sequence_length=16",
    "adapt.batch_size=4",
    "adapt.heldout=0.2",
    "adapt.density=0.5",
    "adapt.l1=0.0",
    "student.layer_reduction_factor=2",
    "phase1.schedule.steps=2",
    "phase1.sequence_length=32",
    "phase1.batch_size=2",
    "phase1.heldout=0.2",
    "teach.default.epochs=12",
    "teach.default.learning_rate=5e-3",
    "teach.default.max_length=48",
    "transfer.default.sparse_epochs=1",
    "transfer.default.tuning.max_length=48",
    "export.rounds=1",
    "export.calibration_texts=20",
    "export.vocabulary=pair",
    "export.precisions=fp32",
)


def command(name: str, place: Path, *, store: Path, teachers: Path) -> list[str]:
    places = {"teacher": place / "teacher", "data": place / "data", "out": place / "runs", "store": store}
    options = [part for option, folder in places.items() for part in (f"--{option}", str(folder))]
    return [name, "--tgt", "ha", "--tasks", "ner", *options, *ADAPTED, f"export.teacher_store={teachers}"]


@pytest.fixture(scope="module")
def stores(place: Path) -> Path:
    """A folder with the `students` and `teachers` of a build whose teachers carry language SFTs."""
    assert main(command("build", place, store=place / "students", teachers=place / "teachers")) == 0
    return place


@pytest.mark.slow
def test_the_teacher_s_bundle_is_the_model_that_its_card_scores(stores: Path) -> None:
    folder = stores / "teachers" / "ha" / "ner" / "1"
    told = Bundle.open(folder).manifest.scores["teacher"]
    examples = datasets.read("ner", stores / "data", "ha", "test").examples
    predictor: Predictor[Any, Any] = Predictor.open(folder)
    found = judge(training_task("ner"), examples, predictions(predictor, examples, progress=False))
    predictor.close()
    assert found["f1"] == pytest.approx(told["f1"], abs=0.01)


@pytest.mark.slow
def test_an_export_whose_teacher_cannot_be_published_publishes_no_student(stores: Path, tmp_path: Path) -> None:
    unwritable, store = tmp_path / "file", tmp_path / "store"
    unwritable.touch()
    assert main(command("export", stores, store=store, teachers=unwritable)) != 0
    assert not (store / "ha").exists()
    assert main(command("export", stores, store=store, teachers=tmp_path / "teachers")) == 0
    assert revisions(store / "ha" / "ner") == revisions(tmp_path / "teachers" / "ha" / "ner") == [1]
