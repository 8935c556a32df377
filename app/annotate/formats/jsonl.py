"""JSON lines: one object a line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from app.annotate.formats.base import Batch, Chunk, Lines, Record
from app.errors import DataError

_MISFITS = (ValueError, OverflowError)


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
        """A line a record.

        :raises DataError: a column of the table cannot be written as JSON.
        """
        try:
            records: list[Any] = batch.records if batch.table is None else batch.table.to_pylist()
            return b"".join(to_json({**records[place], self._column: said}) + b"\n" for place, said in answers.items())
        except _MISFITS as error:
            if batch.table is None:
                raise
            raise DataError(
                f"the column {_misfit(batch.table)!r} cannot be written as JSON, write Parquet (.parquet) instead or "
                f"leave it out: {error}"
            ) from error

    def complete(self, partial: Path) -> Path:
        """The bytes are the file."""
        return partial


def _misfit(table: Any) -> str | None:
    for name in table.column_names:
        try:
            to_json(table.column(name).to_pylist())
        except _MISFITS:
            return str(name)
    return None


def _parse(line: bytes) -> Record:
    try:
        record = from_json(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"is not a JSON object but a {type(record).__name__}")
    return record
