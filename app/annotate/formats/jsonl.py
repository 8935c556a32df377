"""JSON lines: one object a line."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from app.annotate.formats.base import Batch, Chunk, Lines, Record


class Reader:
    """Each line is a record, with all its fields; an empty line is a fault."""

    def __init__(self, path: Path, *, fields: tuple[str, ...], column: str) -> None:
        self._lines = Lines(path)
        self.size = self._lines.size

    def plan(self, start: int, *, first: int) -> Iterator[Chunk]:
        """Chunks of whole lines."""
        return self._lines.plan(start, first=first)

    def read(self, chunk: Chunk) -> Batch:
        """One record a line."""
        return self._lines.read(chunk, _parse)


class Writer:
    """Each record as an object with one more member."""

    def __init__(self, *, column: str, answer: Any) -> None:
        self._column = column

    def render(self, batch: Batch, answers: Mapping[int, Any]) -> bytes:
        """A line a record."""
        records: list[Any] = batch.records if batch.table is None else batch.table.to_pylist()
        return b"".join(to_json({**records[place], self._column: said}) + b"\n" for place, said in answers.items())

    def finish(self, partial: Path, target: Path) -> None:
        """The bytes are the file."""
        os.replace(partial, target)


def _parse(line: bytes) -> Record:
    try:
        record = from_json(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"is not a JSON object but a {type(record).__name__}")
    return record
