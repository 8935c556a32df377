"""Files as chunks, and what is written of them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.annotate.formats import base, jsonl, text
from app.annotate.formats.base import Batch, Chunk, Fault, Lines, Reader
from app.errors import ConfigError, DataError
from app.schemas.ner import Entity
from app.schemas.qa import AnswerSpan


def read_all(reader: Reader, *, start: int = 0, first: int = 0) -> list[Any]:
    return [record for chunk in reader.plan(start, first=first) for record in reader.read(chunk).records]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content", [b"", b"a", b"a\n", b"a\nb", b"\n\n\n", b"a\n\nbb\n", b"x" * 50, b"x" * 50 + b"\ny"]
)
@pytest.mark.parametrize(("chunk_bytes", "chunk_records"), [(1, 1), (3, 2), (10, 100), (1000, 1)])
def test_chunks_hold_every_line_once(
    content: bytes, chunk_bytes: int, chunk_records: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(base, "CHUNK_RECORDS", chunk_records)
    lines = Lines(write(tmp_path / "a.txt", content))
    chunks = list(lines.plan(0, first=0))
    expected = content.decode().removesuffix("\n").split("\n") if content else []
    read = [record for chunk in chunks for record in lines.read(chunk, lambda line: {"line": line.decode()}).records]
    assert read == [{"line": line} for line in expected]
    assert [chunk.end for chunk in chunks[:-1]] == [chunk.start for chunk in chunks[1:]]
    assert all(chunk.n <= chunk_records for chunk in chunks)
    assert all(chunk.n == 1 or chunk.end - chunk.start <= chunk_bytes for chunk in chunks)
    for chunk in chunks:
        assert next(iter(lines.plan(chunk.start, first=chunk.first))) == chunk


def test_text_keeps_what_a_line_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\ufeffƙasa\r\n\n a b \x85 c\u2028d\n".encode())
    assert read_all(text.Reader(path, fields=("text",), column="ner")) == [
        {"text": "ƙasa"},
        {"text": ""},
        {"text": " a b \x85 c\u2028d"},
    ]


def test_lines_that_are_no_records_are_faults_with_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": \n\n[1]\n{"text": "\xff"}\n{"text": "b"}')
    found = read_all(jsonl.Reader(path, fields=("text",), column="ner"))
    assert [record.number if isinstance(record, Fault) else record["text"] for record in found] == [
        "a",
        2,
        3,
        4,
        5,
        "b",
    ]
    assert [record.message.split(":")[0] for record in found if isinstance(record, Fault)] == [
        "is not JSON",
        "is not JSON",
        "is not a JSON object but a list",
        "is not JSON",
    ]


def test_a_line_too_long_to_be_read_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHUNK_BYTES", 8)
    monkeypatch.setattr(base, "_LINE_BYTES", 40)
    path = write(tmp_path / "a.txt", b"x" * 100 + b"\nab\n")
    found = read_all(text.Reader(path, fields=("text",), column="ner"))
    assert found == [Fault(1, "has 101 bytes, more than 40"), {"text": "ab"}]


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"a\nb\n")
    reader = text.Reader(path, fields=("text",), column="ner")
    (chunk,) = reader.plan(0, first=0)
    path.write_bytes(b"a\n")
    with pytest.raises(DataError, match="changed while it was read"):
        reader.read(chunk)


def test_plain_text_does_not_suit_a_task_of_two_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"a\n")
    with pytest.raises(ConfigError, match="needs question and context"):
        text.Reader(path, fields=("question", "context"), column="qa")


def test_parquet_keeps_columns_and_their_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pip install '.[bulk]'")
    import pyarrow.parquet as pq

    from app.annotate.formats import parquet

    table = pa.table(
        {
            "text": [f"t{index}" for index in range(10)],
            "when": pa.array([datetime(2024, 1, 1)] * 10, type=pa.timestamp("ns")),
            "small": pa.array(range(10), type=pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    reader = parquet.Reader(tmp_path / "in.parquet", fields=("text",), column="ner")
    chunks = list(reader.plan(0, first=0))
    assert [(chunk.start, chunk.end) for chunk in chunks] == [(0, 4), (4, 8), (8, 10)]
    assert next(iter(reader.plan(5, first=5))) == Chunk(first=5, n=3, start=5, end=8)
    writer = parquet.Writer(column="ner", answer=list[Entity])
    entity = {"entity_group": "LOC", "score": 0.5, "word": "t", "start": 0, "end": 1}
    partial = b"".join(
        writer.render(reader.read(chunk), {place: [entity] * place for place in range(chunk.n) if place != 1})
        for chunk in chunks
    )
    found = pq.read_table(writer.complete(write(tmp_path / "out.parquet.partial", partial)))
    kept = [0, 2, 3, 4, 6, 7, 8]
    assert found.drop_columns("ner").equals(table.take(kept))
    assert [len(said) for said in found.column("ner").to_pylist()] == [0, 2, 3, 0, 2, 3, 0]
    assert found.column("ner")[1].as_py()[0] == {**entity, "entity": None}


SAID = {"answer": "a", "score": 1.0, "start": 0, "end": 1}


def as_parquet(folder: Path, *batches: list[Any]) -> Path:
    """The Parquet file of chunks of records, each with the same answer in ``qa``."""
    pytest.importorskip("pyarrow", reason="pip install '.[bulk]'")
    from app.annotate.formats import parquet

    writer = parquet.Writer(column="qa", answer=AnswerSpan)
    streams = [writer.render(Batch(records), dict.fromkeys(range(len(records)), SAID)) for records in batches]
    return writer.complete(write(folder / "out.parquet.partial", b"".join(streams)))


def rows(path: Path) -> list[Any]:
    import pyarrow.parquet as pq

    found: list[Any] = pq.read_table(path).to_pylist()
    assert [row.pop("qa") for row in found] == [SAID] * len(found)
    return found


def test_a_field_that_only_later_records_have_is_kept(tmp_path: Path) -> None:
    together = as_parquet(tmp_path, [{"text": "a"}, {"text": "b", "n": 1}, {"when": "now", "text": "c"}])
    expected = [
        {"text": "a", "n": None, "when": None},
        {"text": "b", "n": 1, "when": None},
        {"text": "c", "n": None, "when": "now"},
    ]
    assert rows(together) == expected
    apart = as_parquet(tmp_path, [{"text": "a"}], [{"text": "b", "n": 1}], [{"when": "now", "text": "c"}])
    assert rows(apart) == expected


def test_objects_of_different_members_become_one_of_all(tmp_path: Path) -> None:
    found = as_parquet(tmp_path, [{"x": {"a": 1}}, {"x": {}}], [{"x": {}}], [{"x": {"b": [1.5]}}])
    a = [{"a": 1, "b": None}, {"a": None, "b": None}]
    assert [row["x"] for row in rows(found)] == [*a, a[1], {"a": None, "b": [1.5]}]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([[{"id": 1}, {"id": "b"}]], "the field 'id' does not fit .* write JSON lines instead"),
        ([[{"id": [1]}, {"id": {"a": 1}}]], "the field 'id' does not fit .* write JSON lines instead"),
        ([[{"id": 1, "n": 2**63}]], "the field 'n' does not fit .* write JSON lines instead"),
        ([[{"n": 2**60 + 1}], [{"n": 1.5}]], "do not fit into one table, write JSON lines instead"),
        ([[{"x": {}}], [{"x": {}}]], "do not fit into one table, write JSON lines instead: .*'x'"),
        ([[{"id": {"a": 1}}], [{"id": "x"}]], "do not fit into one table, write JSON lines instead"),
    ],
)
def test_records_that_are_no_table_are_said_to_be_and_leave_nothing(
    batches: list[list[Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        as_parquet(tmp_path, *batches)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["out.parquet.partial"])


def test_a_column_that_is_no_json_is_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pip install '.[bulk]'")
    table = pa.table({"text": ["a"], "picture": [b"\xff\xd8"]})
    writer = jsonl.Writer(column="ner", answer=list[Entity])
    with pytest.raises(DataError, match="the column 'picture' cannot be written as JSON, write Parquet"):
        writer.render(Batch(table.select(["text"]).to_pylist(), table), {0: []})
    readable = table.drop_columns("picture")
    assert json.loads(writer.render(Batch(readable.to_pylist(), readable), {0: []})) == {"text": "a", "ner": []}


def test_records_of_json_become_one_table_of_the_widest_types(tmp_path: Path) -> None:
    found = as_parquet(tmp_path, [{"id": None, "n": 1}], [{"id": "x", "n": 1.5, "extra": True}], [])
    assert rows(found) == [{"id": None, "n": 1.0, "extra": None}, {"id": "x", "n": 1.5, "extra": True}]


def test_json_lines_hold_the_record_and_the_answer() -> None:
    writer = jsonl.Writer(column="ner", answer=list[Entity])
    batch = Batch([{"n": 2**70, "text": "ƙ"}, Fault(2, "bad"), {"text": "b"}])
    lines = writer.render(batch, {0: [], 2: [{"word": "b"}]}).decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"n": 2**70, "text": "ƙ", "ner": []},
        {"text": "b", "ner": [{"word": "b"}]},
    ]
    assert "ƙ" in lines[0]
