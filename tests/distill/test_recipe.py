"""Presets say how much, methods how; tasks start from their table's default."""

import re
from typing import Any

import pytest

from app.errors import ConfigError, UnknownChoice
from distill import config, recipe


def test_a_method_is_laid_over_the_preset_and_what_is_given_over_both() -> None:
    alone = recipe.read("paper", [{"tgt": "ha"}])
    build = recipe.read("paper", [{"tgt": "ha"}, {"method": "bistil"}, {"student": {"layer_reduction_factor": 3}}])
    assert build.method == "bistil" and build.student.layer_reduction_factor == 3
    assert build.phase1.schedule == alone.phase1.schedule
    assert recipe.read("quick", [{"tgt": "ha", "method": "bistil"}]).phase2("ner").copy_head is False


def test_a_task_starts_from_the_default_of_its_table() -> None:
    sources = [{"tgt": "ha", "transfer": {"default": {"density": 0.5}, "pos": {"tuning": {"seed": 7}}}}]
    build = recipe.read("paper", sources)
    default, pos = build.phase2("ner"), build.phase2("pos")
    assert (pos.density, pos.tuning.seed, pos.tuning.learning_rate) == (0.5, 7, default.tuning.learning_rate)
    assert default.tuning.seed == 42


def test_an_unknown_method_is_an_error_that_lists_the_choices() -> None:
    with pytest.raises(UnknownChoice, match="bistil"):
        recipe.read("quick", [{"tgt": "ha", "method": "bistill"}])


@pytest.mark.parametrize("method", recipe.methods())
@pytest.mark.parametrize("preset", recipe.presets())
def test_every_method_fits_every_preset(preset: str, method: str) -> None:
    build = recipe.read(preset, [{"tgt": "ha", "method": method}])
    assert build.method == method


def test_target_labels_are_learnt_from_only_when_asked_for() -> None:
    assert recipe.read("quick", [{"tgt": "ha", "src": "en,fr"}]).labels == ("en", "fr")
    build = recipe.read("quick", [{"tgt": "ha", "src": "en,fr", "target_labels": True}])
    assert build.labels == ("en", "fr", "ha") and build.folder.name == "en+fr-ha"


def test_a_teacher_that_learns_after_objectives_in_which_it_stands_still_is_refused() -> None:
    learning = {"transfer": {"default": {"teacher_objective": {"task": 1.0}}}}
    with pytest.raises(ConfigError, match=r"transfer\.default has intermediate objectives"):
        recipe.read("quick", [{"tgt": "ha", "method": "tinybert"}, learning])


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "transfer.default.start = task_change"), ({"start": "student"}, "transfer.default.copy_head = True")],
)
def test_a_narrower_student_that_would_begin_with_its_teacher_s_weights_is_refused_before_the_work(
    given: dict[str, Any], said: str
) -> None:
    narrow = {"tgt": "ha", "method": "best", "student": {"hidden_size_reduction_factor": 2}}
    with pytest.raises(ConfigError, match=said):
        recipe.read("quick", [narrow, {"transfer": {"default": given}}])
    recipe.read("quick", [narrow, {"transfer": {"default": {"start": "student", "copy_head": False}}}])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"teach": {"max_examples": 64}}, r"teach\.max_examples: .* as in teach\.default\.max_examples=64"),
        ({"transfer": {"sparse_epochs": 2}}, r"transfer\.sparse_epochs: .* as in transfer\.default\.sparse_epochs=2"),
        ({"teach": {"default": 3}}, r"teach\.default: name a task or default, as in teach\.default\.max_examples=64"),
        ({"teach": 3}, r"teach = 3: expected a table by task, as in teach\.default\."),
        ({"transfer": "ner"}, r"transfer = 'ner': expected a table by task, as in transfer\.default\."),
        ({"teach": {"nre": {"seed": 1}}}, r"unknown task in teach 'nre'; choose from: default, ner, pos"),
    ],
)
def test_a_setting_of_no_task_is_an_error_that_says_how_to_write_it(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        recipe.read("quick", [{"tgt": "ha"}, given])


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("export.rounds", 0, "at least 1"),
        ("export.calibration_texts", 0, "at least 1"),
        ("export.test_examples", -1, "at least 0"),
        ("export.threshold", 2.0, "at least 0 and below 1"),
        ("student.threshold", 1.0, "at least 0 and below 1"),
        ("student.threshold", -0.5, "at least 0 and below 1"),
        ("student.hidden_size_reduction_factor", 0, "at least 1"),
        ("phase1.sequence_length", 0, "at least 1"),
        ("phase1.batch_size", -1, "at least 1"),
        ("phase1.mask_share", 15, "more than 0 and at most 1"),
        ("phase1.heldout_batches", 0, "at least 1"),
        ("phase1.schedule.accumulate", 0, "at least 1"),
        ("phase1.schedule.steps", -5, "at least 1"),
        ("phase1.schedule.log_every", 0, "at least 1"),
        ("phase1.schedule.checkpoint_every", 0, "at least 1"),
        ("phase1.schedule.decay_share", 0, "more than 0 and at most 1"),
        ("teach.default.batch_size", 0, "at least 1"),
        ("teach.default.evaluations", 0, "at least 1"),
        ("teach.default.learning_rate", -1, "at least 0"),
        ("teach.default.max_length", 2, "at least 3"),
        ("transfer.default.tuning.evaluations", 0, "at least 1"),
        ("transfer.default.density", 8, "more than 0 and at most 1"),
        ("transfer.default.unlabelled_share", 1.0, "at least 0 and below 1"),
        ("transfer.default.objective.logits.temperature", 0, "more than 0"),
        ("phase1.objective.mutual_information.samples", 1, "at least 2"),
        ("phase1.objective.mutual_information.alpha", 1.5, "at least 0 and at most 1"),
    ],
)
def test_a_number_that_no_stage_can_work_with_is_refused_by_its_name(setting: str, value: float, said: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(setting)} = {value}: expected {said}(\n|$)"):
        recipe.read("quick", [{"tgt": "ha"}, config.overrides([f"{setting}={value}"])])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"density": 0.5, "tuning": {"weight_decay": 0.01}},
            r"transfer\.default\.tuning\.weight_decay = 0\.01 would move",
        ),
        (
            {"tuning": {"epochs": 7}},
            r"transfer\.default\.tuning\.epochs = 7 would change nothing: phase 2 has full_epochs",
        ),
        ({"tuning": {"warmup_share": 0.3}}, r"transfer\.default\.tuning\.warmup_share = 0\.3 would change nothing"),
        (
            {"teacher_objective": {"hidden_states": 1.0}},
            r"transfer\.default\.teacher_objective\.hidden_states compares",
        ),
    ],
)
def test_what_a_phase_could_not_do_is_told_before_it(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe.read("compare", [{"tgt": "ha", "transfer": {"default": given}}])
