"""Stages: resumed, skipped, shared."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from app.errors import ConfigError
from distill import stage


def test_a_finished_stage_is_not_run_again_and_other_inputs_empty_it(tmp_path: Path) -> None:
    calls: list[str] = []

    def work(folder: Path) -> dict[str, int]:
        assert not (folder / "made").exists()
        (folder / "made").touch()
        calls.append(folder.name)
        return {"n": len(calls)}

    first = stage.run(tmp_path / "trim", {"a": 1}, work)
    assert stage.run(tmp_path / "trim", {"a": 1}, work) == first
    assert stage.run(tmp_path / "trim", {"a": 2}, work)["n"] == 2


def test_builds_with_one_pool_share_a_stage_of_equal_inputs_alone(tmp_path: Path) -> None:
    calls: list[int] = []

    def work(folder: Path) -> dict[str, int]:
        (folder / "made").write_text(str(len(calls)))
        calls.append(1)
        return {}

    pool = tmp_path / "stages"
    for name, inputs in (("one", {"a": 1}), ("other", {"a": 1}), ("third", {"a": 2})):
        stage.run(tmp_path / name / "trim", inputs, work, pool=pool)
    assert len(calls) == 2
    read = [(tmp_path / name / "trim" / "made").read_text() for name in ("one", "other", "third")]
    assert read == ["0", "0", "1"]
    stage.run(tmp_path / "one" / "trim", {"a": 2}, work, pool=pool)
    assert len(calls) == 2 and (tmp_path / "one" / "trim" / "made").read_text() == "1"
    assert (tmp_path / "other" / "trim" / "made").read_text() == "0"


def test_a_stage_half_done_in_the_pool_is_resumed(tmp_path: Path) -> None:
    def stops(folder: Path) -> dict[str, int]:
        (folder / "checkpoint").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.run(tmp_path / "one" / "trim", {}, stops, pool=tmp_path / "stages")
    seen = stage.run(
        tmp_path / "other" / "trim",
        {},
        lambda folder: {"resumed": (folder / "checkpoint").exists()},
        pool=tmp_path / "stages",
    )
    assert seen["resumed"]


def test_a_pool_never_takes_the_place_of_a_finished_stage(tmp_path: Path) -> None:
    stage.run(tmp_path / "trim", {}, lambda folder: {})
    with pytest.raises(ConfigError, match="out folder"):
        stage.run(tmp_path / "trim", {}, lambda folder: {}, pool=tmp_path / "stages")


def test_of_two_at_one_stage_of_the_pool_one_works_and_the_other_finds_it_done(tmp_path: Path) -> None:
    working, calls = Event(), []

    def work(folder: Path) -> dict[str, int]:
        calls.append(folder.name)
        working.set()
        time.sleep(0.2)
        return {"n": len(calls)}

    def go(name: str) -> dict[str, int]:
        return stage.run(tmp_path / name / "trim", {"a": 1}, work, pool=tmp_path / "stages")

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(go, "one")
        assert working.wait(timeout=60)
        second = threads.submit(go, "other")
    assert first.result() == second.result() and len(calls) == 1


def test_a_file_is_whole_or_as_it_was_when_its_writing_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    stage.write(tmp_path / "inputs.json", "old")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        stage.write(tmp_path / "inputs.json", "new")
    assert (tmp_path / "inputs.json").read_text() == "old"
    stage.write(tmp_path / "inputs.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["inputs.json"]


def write_often(folder: Path) -> None:
    for _ in range(1000):
        stage.write(folder / "results.json", "x" * 20_000)
        stage.write(folder / "results.md", "y" * 20_000)


def test_two_processes_may_write_the_same_files(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        for done in [pool.submit(write_often, tmp_path) for _ in range(2)]:
            done.result()
    assert {path.name: path.read_text()[:1] for path in tmp_path.iterdir()} == {"results.json": "x", "results.md": "y"}
