"""Every method is a TOML that the one code path runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.errors import ConfigError
from distill import build as building
from distill import recipe
from distill.config import toml
from distill.objectives.base import Sum
from tests.distill import corpora
from tests.distill.tiny import tiny_teacher

SMALL: dict[str, Any] = {
    "tgt": "ha",
    "tasks": ["ner"],
    "phase1": {
        "schedule": {"steps": 2, "checkpoint_every": 2, "evaluate_every": 2},
        "sequence_length": 32,
        "batch_size": 4,
        "heldout": 0.2,
        "heldout_batches": 1,
    },
    "teach": {"default": {"epochs": 0.5, "max_examples": 8, "max_dev": 4, "evaluations": 1}},
    "transfer": {
        "default": {
            "full_epochs": 1,
            "sparse_epochs": 1,
            "tuning": {"max_examples": 8, "max_dev": 4, "batch_size": 4, "evaluations": 1},
        }
    },
}
PUBLISHED = (
    *("bistil", "paper-as-released", "load-what-you-need", "distilbert", "lightmbert", "tinybert", "minilm"),
    *("minilmv2", "mi-alpha", "ctcd", "no-phase2-teacher", "from-scratch"),
)


def small(method: str, **places: Path | str) -> recipe.Build:
    # 32 dimensions have room for no more relation heads
    heads = {"phase1": {"objective": {"relations": {"heads": 4}}}} if method == "minilmv2" else {}
    return recipe.read("quick", [SMALL, heads, {"method": method, **places}])


@pytest.mark.parametrize("method", recipe.methods())
def test_a_method_says_what_it_is_and_has_objectives_in_both_phases(method: str) -> None:
    assert (recipe.METHODS / f"{method}.toml").read_text(encoding="utf-8").startswith("# ")
    build = recipe.read("paper", [{"tgt": "ha", "method": method}])
    assert Sum.of(build.phase1.objective).parts
    for task in ("ner", "pos", "nli", "qa", "dp"):
        phase = build.phase2(task)
        assert Sum.of(phase.objective).parts
        assert (phase.objective, phase.density) == (build.phase2("ner").objective, build.phase2("ner").density)


def test_the_published_methods_are_there_and_differ() -> None:
    assert set(PUBLISHED) <= set(recipe.methods())
    builds = [recipe.read("compare", [{"tgt": "ha", "method": method}]) for method in recipe.methods()]
    told = [replace(build, method="") for build in builds]
    assert all(one != other for place, one in enumerate(told) for other in told[:place])


def test_a_method_takes_the_place_of_what_the_preset_says_on_how() -> None:
    preset = toml(recipe.CONFIGS / "quick.toml")
    build = recipe.read("quick", [{"tgt": "ha", "method": "minilm"}])
    assert set(Sum.of(build.phase1.objective).parts) == {"attention_kl", "relations"}
    assert (build.student.strategy, build.student.initialization) == ("regular", "random")
    assert build.phase2("qa").density == 1.0 and set(build.phase2("qa").objective) == {"task"}
    assert build.phase1.schedule.steps == preset["phase1"]["schedule"]["steps"]


def test_a_method_extends_another() -> None:
    build = recipe.read("paper", [{"tgt": "ha", "method": "no-phase2-teacher"}])
    assert set(Sum.of(build.phase2("ner").objective).parts) == {"task"}
    assert set(Sum.of(build.phase1.objective).parts) == {"hidden_states", "attention"}


@pytest.mark.parametrize(("where", "name"), [("phase1", "task"), ("transfer", "mlm")])
def test_gold_that_a_phase_lacks_is_refused(where: str, name: str) -> None:
    table = {"objective": {name: 1.0}}
    with pytest.raises(ConfigError, match=f"objective.{name}"):
        recipe.read("quick", [{"tgt": "ha", where: table if where == "phase1" else {"default": table}}])


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [*PUBLISHED, "bistil-narrow", "bistil-task-teacher", "bistil-task-change", "bistil-scores", "bistil-relations"],
)
def test_every_method_runs_through_both_phases(method: str, shared: Path) -> None:
    build = small(
        method,
        teacher=str(shared / "teacher"),
        data=shared / "data",
        out=shared / "runs" / method,
        pool=shared / "pool",
    )
    for run in (building.trim, building.student, building.phase1):
        run(build)
    building.task_teacher(build, "ner")
    report = building.task_student(build, "ner")
    has_intermediate = bool(build.phase2("ner").intermediate)
    assert (report["intermediate"] is not None) == has_intermediate
    assert (build.folder / "ner" / "transfer" / "intermediate" / "log.jsonl").is_file() == has_intermediate
    assert all(value == value for value in report["sparse"]["terms"].values())
    assert set(report["sparse"]["terms"]) >= set(Sum.of(build.phase2("ner").objective).parts)
    assert (build.folder / "ner" / "transfer" / "model" / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    corpora.write(folder / "data")
    torch.manual_seed(0)
    tiny_teacher("xlm-roberta", folder / "teacher")
    return folder
