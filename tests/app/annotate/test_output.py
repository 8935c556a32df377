"""What a job that is killed leaves, and how the next one goes on from there."""

import json
from pathlib import Path

import pytest

from app.annotate.formats.jsonl import Writer
from app.annotate.output import Mark, Output, clear_finished
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


def test_killed_between_the_rename_and_the_removal_of_the_journal_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    killed(target)
    assert not clear_finished(target)
    target.with_name("out.jsonl.partial").rename(target)
    assert clear_finished(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


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
