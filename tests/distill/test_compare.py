"""`compare` in miniature: two methods, two seeds; killed, gone on, and not repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import ConfigError, DataError, UnknownChoice
from distill import compare, efficiency, stage
from distill import config as configuration
from distill.__main__ import main
from distill.build import TERMS
from distill.compare import STAGES, Cell, grid
from distill.finding import Finding, in_turn, read_curve
from distill.results import collect, markdown

SMALL = (
    "phase1.schedule.steps=12",
    "phase1.schedule.checkpoint_every=4",
    "phase1.schedule.evaluate_every=4",
    "phase1.schedule.log_every=2",
    "phase1.sequence_length=32",
    "phase1.batch_size=4",
    "phase1.heldout=0.2",
    "teach.default.max_length=64",
    "teach.default.epochs=10",
    "teach.default.learning_rate=3e-3",
    "transfer.default.tuning.learning_rate=3e-3",
    "transfer.default.tuning.max_length=64",
    "export.rounds=1",
)


def arguments(folder: Path, *extra: str) -> list[str]:
    places = {"teacher": folder.parent / "teacher", "data": folder.parent / "data", "out": folder}
    options = [part for name, place in places.items() for part in (f"--{name}", str(place))]
    return ["compare", "--tgt", "ha", "--seeds", "1,2", "--tasks", "pos", *options, *extra, *SMALL]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "distill", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(out: Path) -> dict[str, int]:
    """Each finished stage of the pool and when it was finished."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (out / "compare" / STAGES).glob("*/stage.json")}


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_ends_with_one_table(place: Path) -> None:
    command = arguments(place / "runs", "--methods", "bistil,bistil-unlabelled")
    process = start(command)
    results = place / "runs" / "compare" / "ha" / "results.json"
    while not results.is_file() and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "the comparison ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before, partly = finished(place / "runs"), json.loads(results.read_text())
    assert 0 < partly["finished"] < partly["cells"] == 4

    assert main(command) == 0
    after = finished(place / "runs")
    assert before.items() <= after.items() and len(after) > len(before)
    counts = {
        name: sum(stage.startswith(f"{name}-") for stage in after) for name in ("trim", "teach", "distill", "transfer")
    }
    assert counts == {"trim": 1, "teach": 1, "distill": 2, "transfer": 4}
    told = json.loads(results.read_text())
    assert told["finished"] == 4 and set(told["methods"]) == {"bistil", "bistil-unlabelled"}
    assert (
        told["methods"]["bistil"]["tasks"]["pos"]["seeds"]["1"] == partly["methods"]["bistil"]["tasks"]["pos"]["score"]
    )
    check(told, place / "runs" / "compare")
    assert told["methods"]["bistil"]["tasks"]["pos"]["teacher"]["score"] > 20
    assert told["methods"]["bistil"]["tokens"] != told["methods"]["bistil-unlabelled"]["tokens"], "read the same"
    for name in ("quality.png", "curves.png"):
        assert (results.parent / name).read_bytes().startswith(b"\x89PNG")

    elsewhere = place / "elsewhere"
    findings = ("--findings", str(results.parent / "findings"))
    assert main(arguments(elsewhere, "--methods", "bistil,bistil-unlabelled", *findings)) == 0
    assert not finished(elsewhere), "what is found is not worked out again on another machine"
    again = json.loads((elsewhere / "compare" / "ha" / "results.json").read_text())
    assert {**again, "command": ""} == {**told, "command": ""}


def check(told: dict[str, Any], out: Path) -> None:
    """The table's figures, from the evaluations' files by hand."""
    for method, entry in told["methods"].items():
        assert entry["parameters"] < entry["teacher"]["parameters"]
        assert entry["flops"] / entry["teacher"]["flops"] == pytest.approx(0.5, abs=0.01)
        for task, score in entry["tasks"].items():
            folders = [out / method / f"seed-{seed}" / "en-ha" / task for seed in (1, 2)]
            terms = [np.load(folder / "evaluate-student" / TERMS) for folder in folders]
            ratios = [100 * t[:, 0].sum() / max(t[:, 1].sum(), 1e-12) for t in terms]
            assert score["score"] == pytest.approx(np.mean(ratios))
            assert score["low"] <= score["score"] <= score["high"]
            assert list(score["seeds"].values()) == pytest.approx(ratios)
            assert score["deviation"] == pytest.approx(np.std(ratios, ddof=1))
    for task, pairs in told["differences"].items():
        one, other = (told["methods"][method]["tasks"][task]["score"] for method in pairs[0]["methods"])
        assert pairs[0]["difference"] == pytest.approx(one - other)


def test_every_cell_has_its_seed_and_all_share_the_pool(tmp_path: Path) -> None:
    cells = grid("compare", [{"tgt": "ha", "tasks": "ner,pos"}], methods=["bistil"], seeds=[3, 4], out=tmp_path)
    assert [(cell.task, cell.seed) for cell in cells] == [("ner", 3), ("pos", 3), ("ner", 4), ("pos", 4)]
    for cell in cells:
        assert cell.build.phase1.schedule.seed == cell.build.phase2(cell.task).tuning.seed == cell.seed
        assert cell.build.tuning(cell.task) == cells[0].build.tuning(cell.task)
    assert len({cell.build.pool for cell in cells}) == 1 and len({cell.build.out for cell in cells}) == 2


def test_what_a_cell_finds_is_known_by_what_decides_it_and_by_no_place(place: Path) -> None:
    def cell(method: str, *extra: str, out: str = "one") -> Cell:
        settings = configuration.overrides([f"data={place / 'data'}", f"teacher={place / 'teacher'}", *extra])
        return grid("compare", [{"tgt": "ha", "tasks": "pos"}, settings], methods=[method], seeds=[1], out=place / out)[
            0
        ]

    same = cell("bistil").fingerprint
    assert cell("bistil", out="other").fingerprint == same
    assert cell("bistil", "teach.ner.epochs=9").fingerprint == same, "another task's teacher is none of its"
    others = [cell("bistil-kl"), cell("bistil", "phase1.schedule.steps=3"), cell("bistil", "export.test_examples=7")]
    assert len({same, *(other.fingerprint for other in others)}) == 4


def finding(cell: Cell, *, timed: bool = False, teacher: float = 1.0) -> Finding:
    cost = {"parameters": 10, "bytes": 40, "flops": 100}
    speed = {"speedup": 2.0, "low": 1.9, "high": 2.1}
    return Finding(
        fingerprint=cell.fingerprint,
        target=cell.build.tgt,
        method=cell.method,
        task=cell.task,
        seed=cell.seed,
        terms=([1.0, 0.0], [1.0, 1.0]),
        teacher_terms=([teacher, 0.0], [1.0, 1.0]),
        spent={phase: {"tokens": 1.0, "seconds": 1.0} for phase in ("phase1", "phase2")},
        curves={},
        efficiency={"student": cost, "teacher": cost, "speed": speed} if timed else None,
    )


def cells_of(place: Path, tasks: str) -> list[Cell]:
    settings = configuration.overrides([f"data={place / 'data'}", f"teacher={place / 'teacher'}", f"tasks={tasks}"])
    return grid("compare", [{"tgt": "ha"}, settings], methods=["bistil"], seeds=[1, 2], out=place / "timed")


def found_by(cells: list[Cell], findings: Path) -> list[Finding]:
    return compare.run(cells, findings=findings, tell=print, after=lambda found: None)


def test_a_part_of_a_comparison_has_the_speeds_that_the_whole_found(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_work", lambda cell, *, timed: finding(cell, timed=not timed))
    whole = found_by(cells_of(place, "ner,pos"), tmp_path)
    assert [one.task for one in whole if one.efficiency] == ["ner"]
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    part = found_by(cells_of(place, "pos"), tmp_path)
    told = collect(part, of=2)["methods"]["bistil"]
    assert told["speed"]["speedup"] == 2.0 and told["parameters"] == 10 and told["teacher"]["bytes"] == 40
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == kept

    stranger = tmp_path / "others"
    for number, one in enumerate(whole):
        other = replace(one, target="ig") if one.efficiency else one
        other.save(stranger / f"{number}.json")
    for one, cell in zip(part, cells_of(place, "pos"), strict=True):
        replace(one, efficiency=None).save(stranger / cell.file)
    assert not any(one.efficiency for one in found_by(cells_of(place, "pos"), stranger)), "another target's speed"


def test_a_comparison_that_nobody_timed_is_timed_where_its_models_are(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = cells_of(place, "pos")
    for cell in cells:
        finding(cell).save(tmp_path / cell.file)
    timed = finding(cells[0], timed=True).efficiency
    measured: list[str] = []

    def measure(build: Any, task: str) -> Any:
        measured.append(task)
        return timed

    monkeypatch.setattr(efficiency, "measure", measure)
    assert not any(one.efficiency for one in found_by(cells, tmp_path)) and not measured
    monkeypatch.setattr(stage, "found", lambda folder, mark: {"fingerprint": mark})
    assert [one.efficiency for one in found_by(cells, tmp_path)] == [timed, None] and measured == ["pos"]


def test_where_the_teacher_scores_nothing_no_share_of_it_is_told(place: Path) -> None:
    found = collect([finding(cell, teacher=0.0) for cell in cells_of(place, "pos")], of=2)
    assert not {"kept", "kept_low", "kept_high"} & found["methods"]["bistil"]["tasks"]["pos"].keys()
    assert "50.0" in markdown({**found, "command": "compare"})


def test_a_damaged_finding_says_which_file_to_remove(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"method": "bistil"}')
    with pytest.raises(DataError, match=r"a\.json.*remove it"):
        Finding.load(tmp_path / "a.json")


def test_unknown_and_repeated_methods_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UnknownChoice, match="bistil"):
        grid("compare", [{"tgt": "ha"}], methods=["bistill"], seeds=[1], out=tmp_path)
    with pytest.raises(ConfigError, match="each method once"):
        grid("compare", [{"tgt": "ha"}], methods=["bistil", "bistil"], seeds=[1], out=tmp_path)
    with pytest.raises(ConfigError, match="each seed once"):
        grid("compare", [{"tgt": "ha"}], methods=["bistil"], seeds=[], out=tmp_path)


def test_the_table_names_a_teacher_once_and_another_method_s_teacher_apart() -> None:
    score = {"score": 50.0, "low": 48.0, "high": 52.0, "kept": 90.0, "kept_low": 88.0, "kept_high": 92.0}
    methods = {
        name: {"tasks": {"ner": {**score, "teacher": {"score": value, "low": value - 1, "high": value + 1}}}}
        for name, value in (("bistil", 55.0), ("other", 55.0), ("two-sources", 60.0))
    }
    told = {
        "target": "ha",
        "finished": 3,
        "cells": 3,
        "metrics": {"ner": "f1"},
        "methods": methods,
        "differences": {"ner": []},
        "command": "python -m distill compare --tgt ha",
    }
    rows = [line.split("|")[1].strip() for line in markdown(told).splitlines() if line.startswith("|")]
    assert rows[2:] == ["teacher", "teacher of two-sources", "bistil", "other", "two-sources"]
    assert "python -m distill compare --tgt ha" in markdown(told)


def test_of_steps_made_twice_the_later_ones_count(tmp_path: Path) -> None:
    entries = [
        {"step": 2, "tokens": 100},
        {"step": 2, "score": -9.0},
        {"step": 4, "tokens": 100},
        {"step": 4, "score": -8.0},
        {"step": 4, "tokens": 100},
        {"step": 4, "score": -7.0},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (tokens, scores), total = read_curve(tmp_path / "log.jsonl")
    assert total == 200 and tokens.tolist() == [100, 200] and scores.tolist() == [-9.0, -7.0]


def test_phases_follow_each_other_in_a_curve_and_one_without_scores_counts_by_its_tokens(tmp_path: Path) -> None:
    entries: dict[str, list[dict[str, float]]] = {
        "intermediate": [{"step": 2, "tokens": 70}],
        "full": [{"step": 1, "tokens": 30}, {"step": 1, "score": 0.4}, {"step": 2, "tokens": 30}],
        "sparse": [{"step": 1, "tokens": 50}, {"step": 1, "score": 0.6}],
    }
    for name, lines in entries.items():
        (tmp_path / name).write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    found = in_turn(*(tmp_path / name for name in ("intermediate", "full", "absent", "sparse")))
    assert found is not None
    assert found[0].tolist() == [70 + 30, 70 + 60 + 50] and found[1].tolist() == [0.4, 0.6]
