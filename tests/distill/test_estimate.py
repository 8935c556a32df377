"""`--dry-run`: costs worked out by hand, sizes beside those of real models and folders, and nothing written."""

import re
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from distill import config as configuration
from distill import recipe
from distill.__main__ import main
from distill.build import STAGES
from distill.estimate import Cost, estimate
from distill.measurements import Measurements
from distill.recipe import Build
from distill.speed import Model, Speed, time_layer
from distill.student import create
from distill.teacher import load_teacher
from tests.distill import corpora
from tests.distill.test_build import SMALL
from tests.distill.tiny import tiny_teacher

TASK_STAGES = ("teach", "transfer", "evaluate", "export")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("estimate")
    corpora.write(root / "data")
    torch.manual_seed(0)
    tiny_teacher("xlm-roberta", root / "teacher")
    return root


def build_of(folder: Path, **changes: object) -> Build:
    places = {"teacher": str(folder / "teacher"), "data": str(folder / "data"), "out": str(folder / "runs")}
    phase1 = {"schedule": {"steps": 10, "evaluate_every": 0}, "batch_size": 4, "sequence_length": 32}
    return recipe.read("quick", [{"tgt": "ha", "tasks": "ner", **places, "phase1": phase1, **changes}])


def only(costs: list[Cost], name: str) -> Cost:
    (found,) = [cost for cost in costs if cost.name == name]
    return found


def free(config: PreTrainedConfig, rows: int, length: int, half: bool) -> Speed:
    return Speed(forward=0, both=0, update=0)


def test_phase_1_is_the_teacher_forwards_and_the_student_there_and_back(folder: Path) -> None:
    asked: list[tuple[int, int]] = []

    def clock(config: PreTrainedConfig, rows: int, length: int, half: bool) -> Speed:
        asked.append((rows, length))
        return Speed(forward=1.0, both=100.0, update=0)

    build = build_of(folder, student={"layer_reduction_factor": 2})
    reading = only(estimate(build, ["distill"], measured=Measurements(free)), "distill").seconds
    spent = only(estimate(build, ["distill"], measured=Measurements(clock)), "distill").seconds
    tokens, teacher_layers, student_layers = 4 * 32, 4, 2
    steps = 10 * tokens * (teacher_layers * 1 + student_layers * 100)
    looks = build.phase1.heldout_batches * tokens * (teacher_layers + student_layers)
    assert spent == pytest.approx(steps + looks, abs=reading + 1)
    assert set(asked) == {(4, 32)}


def test_a_step_of_the_task_teacher_updates_every_parameter(folder: Path) -> None:
    def clock(config: PreTrainedConfig, rows: int, length: int, half: bool) -> Speed:
        return Speed(forward=0, both=0, update=1.0)

    halved = {"layer_reduction_factor": 2}
    build = build_of(folder, student=halved, teach={"default": {"batch_size": 8, "epochs": 2}})
    n_sentences = (folder / "data" / "ner" / "en" / "train.conll").read_text(encoding="utf-8").strip().count("\n\n") + 1
    teacher, _ = load_teacher(folder / "teacher")
    spent = only(estimate(build, ["teach"], measured=Measurements(clock)), "ner/teach").seconds
    assert spent == 2 * -(-n_sentences // 8) * teacher.num_parameters()


def test_parameters_are_counted_without_making_them(folder: Path) -> None:
    teacher, _ = load_teacher(folder / "teacher")
    config = AutoConfig.from_pretrained(folder / "teacher")
    assert Model.of(config).parameters == teacher.num_parameters()
    student = create(teacher, layer_reduction_factor=2)
    head = teacher.num_parameters() - cast(PreTrainedModel, teacher.base_model).num_parameters()
    assert (
        Model.of(config, num_hidden_layers=2).parameters
        == cast(PreTrainedModel, student.base_model).num_parameters() + head
    )


@pytest.mark.parametrize("half", [False, True])
def test_a_layer_is_timed_in_both_directions_whatever_its_weights_are_stored_in(folder: Path, half: bool) -> None:
    config = AutoConfig.from_pretrained(folder / "teacher")
    config.dtype = torch.float16
    speed = time_layer(config, 4, 16, half)
    assert speed.forward > 0 and speed.both > 0 and speed.update > 0
    assert config.num_hidden_layers == 4


def test_a_dry_run_names_every_stage_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [part for name in ("teacher", "data", "out", "store") for part in (f"--{name}", str(folder / name))]
    before = sorted(folder.rglob("*"))
    assert main(["build", "--tgt", "ha", "--tasks", "ner,pos", *places, "--dry-run", *SMALL]) == 0
    told = capsys.readouterr().out
    expected = [name for name in STAGES if name not in (*TASK_STAGES, "adapt")]
    expected += [f"{task}/{name}" for task in ("ner", "pos") for name in TASK_STAGES]
    for name in (*expected, "in all"):
        assert re.search(rf"{name} .*\d (s|min|h) .*\d (MB|GB) ", told), f"{name} is not in\n{told}"
    assert "estimate" in told and sorted(folder.rglob("*")) == before


def test_a_dry_run_of_what_cannot_start_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--teacher", str(folder / "teacher"), "--data", str(folder / "nowhere")]
    assert main(["build", "--tgt", "ha", *places, "--dry-run"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_build_left_what_was_estimated_and_is_told_as_done(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "teacher", tmp_path / "teacher")
    places = {
        "teacher": tmp_path / "teacher",
        "data": folder / "data",
        "out": tmp_path / "runs",
        "store": tmp_path / "s",
    }
    options = [part for name, place in places.items() for part in (f"--{name}", str(place))]
    assert main(["build", "--tgt", "ha", "--tasks", "ner", *options, *SMALL]) == 0
    given = {"tgt": "ha", "tasks": "ner", **{name: str(place) for name, place in places.items()}}
    settings = configuration.overrides(SMALL)
    build = recipe.read("quick", [given, settings])
    stages = [name for name in STAGES if name != "adapt"]
    costs = estimate(build, stages, measured=Measurements(free))
    assert all(cost.is_done for cost in costs)
    longer = recipe.read("quick", [given, settings, {"phase1": {"schedule": {"steps": 25}}}])
    left = [cost.name for cost in estimate(longer, stages, measured=Measurements(free)) if not cost.is_done]
    assert left == ["distill", "ner/transfer", "ner/evaluate", "ner/export"]
    for name in ("trim", "student", "distill", "ner/teach", "ner/transfer"):
        files = (build.folder / name).rglob("*.safetensors")
        weights = sum(value.nbytes for path in files for value in load_file(path).values())
        assert only(costs, name).disk == pytest.approx(weights, rel=0.15), name
