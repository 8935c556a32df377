"""`compare --dry-run`: shared stages once, found cells not at all, and nothing written."""

import re
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedConfig

from distill import config as configuration
from distill import recipe
from distill.__main__ import main
from distill.compare import Cell, grid
from distill.compare_estimate import remaining
from distill.estimate import estimate
from distill.finding import Finding
from distill.inputs import fingerprints, identity
from distill.measurements import Measurements
from distill.speed import Speed
from tests.distill.test_compare import SMALL

METHODS = ("bistil", "bistil-unlabelled")
SEEN = ("train", "dev")


def cells_of(place: Path) -> list[Cell]:
    given = {"tgt": "ha", "tasks": "pos", "teacher": str(place / "teacher"), "data": str(place / "data")}
    sources = [given, configuration.overrides(SMALL)]
    return grid("compare", sources, methods=METHODS, seeds=[1, 2], out=place / "runs" / "compare")


def find(cell: Cell, findings: Path) -> None:
    Finding(
        fingerprint=cell.fingerprint,
        target="ha",
        method=cell.method,
        task=cell.task,
        seed=cell.seed,
        terms=([1], [1]),
        teacher_terms=([1], [1]),
        spent={},
        curves={},
    ).save(findings / cell.file)


def a_second_a_token(config: PreTrainedConfig, rows: int, length: int, half: bool) -> Speed:
    return Speed(forward=1.0, both=1.0, update=0)


def test_each_shared_stage_is_counted_once(place: Path, tmp_path: Path) -> None:
    cells, measured = cells_of(place), Measurements(a_second_a_token)
    rows = remaining(cells, findings=tmp_path, measured=measured)
    assert [row.name for row in rows] == [cell.name for cell in cells]
    alone = [
        {cost.name: cost.seconds for cost in estimate(cell.build, stages, measured=measured)}
        for cell in cells
        for stages in [("trim", "student", "distill", "teach", "transfer", "evaluate")]
    ]
    # the two methods differ in phase 2 alone: phase 1 once a seed, the teacher once
    assert rows[0].seconds == pytest.approx(sum(alone[0].values()))
    assert rows[1].seconds == pytest.approx(alone[1]["pos/transfer"] + alone[1]["pos/evaluate"])
    assert rows[2].seconds == pytest.approx(sum(alone[2][name] for name in ("distill", "pos/transfer", "pos/evaluate")))
    assert rows[3].seconds == pytest.approx(alone[3]["pos/transfer"] + alone[3]["pos/evaluate"])
    assert rows[0].disk > rows[2].disk > rows[1].disk > 0


def test_a_stage_s_fingerprint_tells_which_cells_share_it(place: Path) -> None:
    found = [fingerprints(cell.build) for cell in cells_of(place)]
    counts = {name: len({marks[name] for marks in found}) for name in found[0]}
    assert {name: counts[name] for name in ("trim", "student", "distill", "pos/teach", "pos/transfer")} == {
        **{"trim": 1, "student": 1, "distill": 2},
        **{"pos/teach": 1, "pos/transfer": 4},
    }


@pytest.mark.parametrize(
    ("changed", "anew"),
    [
        *((f"pos/en/{split}.conll", {"teach", "transfer", "evaluate-student", "evaluate-baseline"}) for split in SEEN),
        ("pos/ha/test.conll", {"evaluate-student", "evaluate-baseline"}),
        ("pos/ha/train.conll", set()),
    ],
)
def test_labels_changed_in_place_are_other_inputs(place: Path, tmp_path: Path, changed: str, anew: set[str]) -> None:
    for name in ("data", "teacher"):
        shutil.copytree(place / name, tmp_path / name)
    before = cells_of(tmp_path)[0]
    marks, mark = fingerprints(before.build), before.fingerprint
    file = tmp_path / "data" / changed
    file.write_bytes(file.read_bytes().replace(b"NOUN", b"VERB"))
    after = cells_of(tmp_path)[0]
    found = {name.removeprefix("pos/") for name, value in fingerprints(after.build).items() if value != marks[name]}
    implied = {"evaluate-teacher", "export"} if anew else set()
    assert found == anew | implied
    assert (after.fingerprint != mark) == bool(anew)


def test_originals_of_the_test_questions_and_a_published_fine_tuning_count_by_content(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    published = tmp_path / "sft.bin"
    qa = tmp_path / "data" / "qa"
    (qa / "xquad_ha.json").write_text("{}")

    def marks(content: str) -> dict[str, str]:
        published.write_text(content)
        (qa / "xquad_en.json").write_text(content)
        given = {"tgt": "ha", "tasks": "qa", "teacher": str(place / "teacher"), "data": str(tmp_path / "data")}
        adapted = {"adapted": True, "adapt": {"files": {"ha": str(published)}}}
        return fingerprints(recipe.read("quick", [given, adapted]))

    before, after = marks("one"), marks("another")
    changed = {name for name, mark in before.items() if mark != after[name]}
    assert {"adapt-ha", "distill", "qa/teach", "qa/evaluate-baseline"} <= changed
    assert not changed & {"trim", "adapt-en", "student"}


def test_a_model_without_tokenizer_json_counts_by_the_vocabulary_it_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vocab.txt").write_text("a")
    before = identity(tmp_path)
    (tmp_path / "vocab.txt").write_text("b")
    assert identity(tmp_path) != before
    (tmp_path / "tokenizer.json").write_text("{}")
    before = identity(tmp_path)
    (tmp_path / "vocab.txt").write_text("c")
    assert identity(tmp_path) == before


def test_a_found_cell_costs_nothing_and_what_it_shared_falls_to_the_next(place: Path, tmp_path: Path) -> None:
    cells, measured = cells_of(place), Measurements(a_second_a_token)
    before = remaining(cells, findings=tmp_path, measured=measured)
    find(cells[0], tmp_path)
    after = remaining(cells, findings=tmp_path, measured=measured)
    assert (after[0].is_done, after[0].seconds, after[0].disk) == (True, 0, 0)
    assert not any(row.is_done for row in after[1:])
    # its transfer and evaluation alone are saved
    saved = sum(row.seconds for row in before) - sum(row.seconds for row in after)
    costs = estimate(cells[0].build, ("transfer", "evaluate"), measured=measured)
    assert saved == pytest.approx(sum(cost.seconds for cost in costs))


def test_a_dry_run_names_every_cell_and_writes_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find(cells_of(place)[0], tmp_path)
    places = {"teacher": place / "teacher", "data": place / "data", "out": place / "runs", "findings": tmp_path}
    options = [part for name, value in places.items() for part in (f"--{name}", str(value))]
    command = ["compare", "--tgt", "ha", "--tasks", "pos", "--methods", ",".join(METHODS), "--seeds", "1,2"]
    before = sorted(place.rglob("*"))
    assert main([*command, *options, *SMALL, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"bistil, pos, seed 1 .* done ", told)
    for name in ("bistil-unlabelled, pos, seed 1", "bistil, pos, seed 2", "bistil-unlabelled, pos, seed 2", "in all"):
        assert re.search(rf"{name} .*\d (s|min|h) .*\d (MB|GB) ", told), f"{name} is not in\n{told}"
    assert sorted(place.rglob("*")) == before
