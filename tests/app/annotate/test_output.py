"""What a job that is killed leaves, and how the next one goes on from there."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.annotate.formats.base import Batch
from app.annotate.formats.jsonl import Writer
from app.annotate.output import Mark, Output, begun_with, clear_finished
from app.errors import ConfigError, DataError

HEADER = {"input": "3 bytes", "model": "ha/ner/1"}


def killed(target: Path, *, chunks: int = 2) -> None:
    """A job that committed some chunks of ten bytes each and was killed while it wrote another."""
    output = Output.open(target, header=HEADER)
    for index in range(chunks):
        output.commit(b"0123456789", position=index + 1, n_records=1, n_faults=0)
    output.close()
    with target.with_name("out.jsonl.partial").open("ab") as partial:
        partial.write(b"half a chu")
    with target.with_name("out.jsonl.journal").open("ab") as journal:
        journal.write(b'{"position": 3, "n_by')


def test_goes_on_after_the_last_committed_chunk(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    killed(target)
    output = Output.open(target, header=HEADER)
    assert output.mark == Mark(position=2, n_bytes=20, n_records=2)
    output.commit(b"abc", position=3, n_records=1, n_faults=1)
    output.finish(Writer(column="ner", answer=None))
    output.close()
    assert target.read_bytes() == b"01234567890123456789abc"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_killed_before_anything_was_committed_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.journal").write_bytes(b'{"inp')
    output = Output.open(tmp_path / "out.jsonl", header=HEADER)
    assert output.mark == Mark()
    output.close()
    assert json.loads((tmp_path / "out.jsonl.journal").read_text()) == HEADER


class Elsewhere:
    """A writer whose output is another file than the partial one."""

    def render(self, batch: Batch, answers: Mapping[int, Any]) -> bytes:
        return b""

    def complete(self, partial: Path) -> Path:
        complete = partial.with_suffix(".complete")
        complete.write_bytes(partial.read_bytes())
        return complete


def killed_at(monkeypatch: pytest.MonkeyPatch, target: Path, writer: Any, *, call: str) -> None:
    """A job that committed 20 bytes and was killed in its last steps, where it called a function of ``os``."""
    killed(target)
    output = Output.open(target, header=HEADER)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, call, stop)
        output.finish(writer)
    output.close()


WRITERS = [Writer(column="ner", answer=None), Elsewhere()]


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_between_the_rename_and_the_removal_of_the_journal_is_finished(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.jsonl"
    killed_at(monkeypatch, target, writer, call="unlink")
    assert clear_finished(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert target.read_bytes() == b"0123456789" * 2


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_just_before_the_rename_it_is_done_again(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.jsonl"
    killed_at(monkeypatch, target, writer, call="replace")
    assert not clear_finished(target)
    assert begun_with(target) == HEADER
    output = Output.open(target, header=HEADER)
    assert output.mark == Mark(position=2, n_bytes=20, n_records=2)
    output.finish(writer)
    output.close()
    assert target.read_bytes() == b"0123456789" * 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize("call", ["", "replace"])
def test_a_file_that_came_to_the_target_of_half_a_job_destroys_nothing(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.jsonl"
    if call:
        killed_at(monkeypatch, target, WRITERS[0], call=call)
    else:
        killed(target)
    target.write_text("another's")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"out\.jsonl exists already"):
        clear_finished(target)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(before) == 3


def test_a_job_that_is_about_to_finish_is_not_cleared_away_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    killed_at(monkeypatch, target, WRITERS[0], call="unlink")
    with journal.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is writing"):
            clear_finished(target)
        assert journal.exists()
    assert clear_finished(target)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the output's folder {tmp_path / 'missing'} does not exist"):
        Output.open(tmp_path / "missing" / "out.jsonl", header=HEADER)
    assert not list(tmp_path.iterdir())


def test_the_header_of_the_job_that_began_is_known(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    assert begun_with(target) == {}
    killed(target)
    assert begun_with(target) == HEADER


def test_another_jobs_journal_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    killed(target)
    with pytest.raises(ConfigError, match="another model, 'ha/ner/1' and not 'ha/ner/2'"):
        Output.open(target, header=HEADER | {"model": "ha/ner/2"})


def test_two_processes_cannot_write_one_output(tmp_path: Path) -> None:
    output = Output.open(tmp_path / "out.jsonl", header=HEADER)
    with pytest.raises(ConfigError, match="another process is writing"):
        Output.open(tmp_path / "out.jsonl", header=HEADER)
    output.close()


def test_an_output_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("precious")
    with pytest.raises(ConfigError, match="exists already"):
        Output.open(tmp_path / "out.jsonl", header=HEADER)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_damage_is_noticed(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    killed(target)
    target.with_name("out.jsonl.partial").write_bytes(b"0123")
    with pytest.raises(DataError, match="has 4 bytes"):
        Output.open(target, header=HEADER)
    target.with_name("out.jsonl.journal").write_bytes(b"no journal\n")
    with pytest.raises(DataError, match="is damaged"):
        Output.open(target, header=HEADER)
