"""``python -m app.annotate`` against the server, against itself, and against kill -9."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from starlette.testclient import TestClient

from app import bundle, choice
from app.annotate.__main__ import main
from app.annotate.formats import base
from app.bundle import Variant
from app.microbatches import Cost
from tests.app import tiny

ROOT = Path(__file__).parents[3]
RECORDS: dict[str, list[dict[str, Any]]] = {
    "ner": [{"id": index, "text": f"{'yara ' * (index % 5)}{tiny.SENTENCE}"} for index in range(20)],
    "pos": [{"text": "Bola isa."}, {"text": ""}, {"text": "Kano " * 200}],
    "dp": [{"text": "Bola isa Kano."}, {"text": "isa"}],
    "nli": [{"text": "isa", "text_pair": "isa"}, {"text": "wasa", "text_pair": "gida"}],
    "qa": [{"question": "Ina?", "context": "ya isa Bola Tinubu da yara"}, {"question": "Ina?", "context": "yara"}],
}


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def flags(store: Path, task: str = "ner", *more: str) -> list[str]:
    return ["--lang", "ha", "--task", task, "--store", str(store), "--workers", "1", *more]


@pytest.mark.parametrize("task", RECORDS)
def test_answers_are_those_of_the_server(task: str, tmp_path: Path, store: Path, client: TestClient) -> None:
    source, target = write_lines(tmp_path / "in.jsonl", RECORDS[task]), tmp_path / "out.jsonl"
    assert main([str(source), str(target), *flags(store, task)]) == 0
    inputs = [record["text"] if task in ("ner", "pos", "dp") else record for record in RECORDS[task]]
    said = client.post(f"/v1/ha/{task}", json={"inputs": inputs}).json()
    assert read_lines(target) == [{**record, task: answer} for record, answer in zip(RECORDS[task], said, strict=True)]


def test_parameters_fields_and_column_are_the_callers(tmp_path: Path, store: Path) -> None:
    records = [{"q": "Ina?", "passage": "ya isa Bola Tinubu da Kano"}]
    source, target = write_lines(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    more = ["--fields", "q,passage", "--column", "said", "--parameters", '{"top_k": 2}']
    assert main([str(source), str(target), *flags(store, "qa", *more)]) == 0
    (record,) = read_lines(target)
    assert list(record) == ["q", "passage", "said"]
    assert [found["answer"] for found in record["said"]] == ["Bola Tinubu", "Bola Tinubu da Kano"]


def test_parquet_says_the_same_as_json_lines(tmp_path: Path, store: Path) -> None:
    pytest.importorskip("pyarrow", reason="pip install '.[bulk]'")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(RECORDS["ner"]), tmp_path / "in.parquet", row_group_size=7)
    source = write_lines(tmp_path / "in.jsonl", RECORDS["ner"])
    for name, target in ((source, "a.jsonl"), (tmp_path / "in.parquet", "b.jsonl"), (source, "c.parquet")):
        assert main([str(name), str(tmp_path / target), *flags(store)]) == 0
    assert main([str(tmp_path / "in.parquet"), str(tmp_path / "d.parquet"), *flags(store)]) == 0
    lines = read_lines(tmp_path / "a.jsonl")
    assert read_lines(tmp_path / "b.jsonl") == lines
    for target in ("c.parquet", "d.parquet"):
        rows = pq.read_table(tmp_path / target).to_pylist()
        for row in rows:
            for entity in row["ner"]:
                assert entity.pop("entity") is None
        assert rows == lines


BAD = [
    {"text": "Kano"},
    {"text": 5},
    {"words": "x"},
    {"text": "a", "ner": 1},
    {"text": "x" * 100_001},
    {"text": "Abuja"},
]


def test_a_bad_record_stops_the_job_and_keeps_what_is_before(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CHUNK_RECORDS", 1)
    source, target = write_lines(tmp_path / "in.jsonl", BAD), tmp_path / "out.jsonl"
    assert main([str(source), str(target), *flags(store)]) == 2
    assert "record 2: text: Input should be a valid string" in capsys.readouterr().err
    assert not target.exists()
    assert main([str(source), str(target), *flags(store, "ner", "--on-error", "skip")]) == 0
    assert [record["text"] for record in read_lines(target)] == ["Kano", "Abuja"]
    said = capsys.readouterr().err
    assert "going on after record 1\n" in said
    for line in (
        "left out record 2: text: Input should be a valid string",
        "left out record 3: lacks the field 'text'",
        "left out record 4: has a field 'ner' already",
        "left out record 5: has a text of 100001 characters, more than 100000",
        "6 records, 4 of them left out",
    ):
        assert line in said


def test_a_question_too_long_for_the_model_is_left_out_alone(tmp_path: Path, store: Path) -> None:
    records = [*RECORDS["qa"], {"question": "Ina " * 100, "context": "yara"}]
    source, target = write_lines(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    assert main([str(source), str(target), *flags(store, "qa", "--on-error", "skip")]) == 0
    assert [record["context"] for record in read_lines(target)] == [record["context"] for record in RECORDS["qa"]]


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (("in.csv", "out.jsonl"), [], "unknown file suffix '.csv'"),
        (("in.jsonl", "out.txt"), [], "answers are written as JSON lines"),
        (("missing.jsonl", "out.jsonl"), [], "missing.jsonl is not a file"),
        (("in.jsonl", "out.jsonl"), ["--parameters", '{"top": 1}'], "--parameters: top: Extra inputs"),
        (("in.jsonl", "out.jsonl"), ["--fields", "a,b"], "--fields: the task ner needs 1, for text"),
        (("in.jsonl", "out.jsonl"), ["--variant", "fp64"], "no variant 'fp64'"),
        (("in.jsonl", "missing/out.jsonl"), [], "missing does not exist: make it or name another output\n"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    names: tuple[str, str],
    more: list[str],
    message: str,
    tmp_path: Path,
    store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_lines(tmp_path / "in.jsonl", BAD)
    assert main([*(str(tmp_path / name) for name in names), *flags(store, "ner", *more)]) != 0
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_output_that_is_no_job_of_this_one_keeps_its_half_done_job(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base, "CHUNK_RECORDS", 1)
    source, target = write_lines(tmp_path / "in.jsonl", BAD), tmp_path / "out.jsonl"
    assert main([str(source), str(target), *flags(store)]) == 2
    target.write_text("another's")
    assert main([str(source), str(target), *flags(store, "ner", "--on-error", "skip")]) == 2
    assert "out.jsonl exists already" in capsys.readouterr().err
    target.unlink()
    assert main([str(source), str(target), *flags(store, "ner", "--on-error", "skip")]) == 0
    assert "going on after record 1\n" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["end", "time"])
def test_a_job_does_not_go_on_with_another_input(
    change: str, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base, "CHUNK_RECORDS", 1)
    records = [{"text": "Kano"}, {"text": 5}, *({"text": "Kano", "filler": "x" * 10_000} for _ in range(200))]
    source, target = write_lines(tmp_path / "in.jsonl", [*records, {"text": "Kano"}]), tmp_path / "out.jsonl"
    assert main([str(source), str(target), *flags(store)]) == 2
    status = source.stat()
    if change == "end":
        write_lines(source, [*records, {"text": "Bola"}])
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + (change == "time")))
    assert source.stat().st_size == status.st_size
    capsys.readouterr()
    assert main([str(source), str(target), *flags(store, "ner", "--on-error", "skip")]) == 2
    assert "is of a job with another input" in capsys.readouterr().err
    assert not target.exists()


@pytest.fixture
def two_variants(tmp_path: Path) -> Path:
    """A store with one NER bundle, whose ``int8`` finds Kano to be a person, and whose ``fp32``, the first, a place."""
    staged, tokenizer = tmp_path / "staged", tiny.xlmr()
    staged.mkdir()
    for name, label in (("fp32", "B-LOC"), ("int8", "B-PER")):
        values = tiny.table(tokenizer, tiny.NER_LABELS, {"Kano": label})
        onnx.save(tiny.token_model(values), str(staged / f"{name}.onnx"))
    tokenizer.save(str(staged / "tokenizer.json"))
    variants = tuple(Variant(name=name, file=f"{name}.onnx") for name in ("fp32", "int8"))
    bundle.write(staged, tiny.manifest("ner", variants=variants), store=tmp_path / "two")
    return tmp_path / "two"


def timed(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Let variants take so long, in the order of the manifest."""
    again = itertools.cycle(seconds.values())
    monkeypatch.setattr(choice, "measure", lambda run, **_: Cost(per_batch=next(again), per_token=0.0))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_variant_answers_the_whole_file_and_is_kept_when_another_is_faster(
    workers: str, tmp_path: Path, two_variants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CHUNK_RECORDS", 1)
    source = write_lines(tmp_path / "in.jsonl", [{"text": "Kano"}, {"text": 5}, {"text": "Kano"}, {"text": "Kano"}])
    target, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    more = ["--workers", workers]
    timed(monkeypatch, fp32=2.0, int8=1.0)
    assert main([str(source), str(target), *flags(two_variants, "ner", *more)]) == 2
    assert json.loads(journal.read_text().splitlines()[0])["variant"] == "int8"
    timed(monkeypatch, fp32=1.0, int8=2.0)
    assert main([str(source), str(target), *flags(two_variants, "ner", "--on-error", "skip", *more)]) == 0
    assert [record["ner"][0]["entity_group"] for record in read_lines(target)] == ["PER"] * 3


def test_a_job_does_not_go_on_with_another_variant_than_it_began_with(
    tmp_path: Path, two_variants: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base, "CHUNK_RECORDS", 1)
    source, target = write_lines(tmp_path / "in.jsonl", BAD), tmp_path / "out.jsonl"
    assert main([str(source), str(target), *flags(two_variants, "ner", "--variant", "int8")]) == 2
    assert main([str(source), str(target), *flags(two_variants, "ner", "--variant", "fp32")]) == 2
    assert "is of a job with another variant, 'int8' and not 'fp32'" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_at_any_moment_it_goes_on_without_a_lost_or_doubled_line(
    workers: str, tmp_path: Path, store: Path
) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"id": index, "text": "isa Kano"} for index in range(8 * 1024)])
    target, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    command = [sys.executable, "-m", "app.annotate", str(source), str(target), *flags(store), "--workers", workers]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BISTIL_")}
    n_kills = n_committed = 0
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if journal.exists() and len(journal.read_bytes().splitlines()) - 1 >= n_committed + 2:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
        n_kills += 1
        n_committed = journal.read_bytes().count(b"\n") - 1
        assert not target.exists()
    assert n_kills
    if not target.exists():
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert f"going on after record {n_committed * 1024:,}" in done.stderr
    records = read_lines(target)
    assert [record["id"] for record in records] == list(range(8 * 1024))
    assert {record["ner"][0]["word"] for record in records} == {"Kano"}
