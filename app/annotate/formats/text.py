"""Plain text, one text a line. It is read only: annotated, a text becomes a line of JSON."""

from collections.abc import Iterator
from pathlib import Path

from app.annotate.formats.base import Batch, Chunk, Lines
from app.errors import ConfigError


class Reader:
    """Each line is a record of one field; an empty line is an empty text."""

    def __init__(self, path: Path, *, fields: tuple[str, ...], column: str) -> None:
        if len(fields) != 1:
            raise ConfigError(
                f"{path}: plain text has one text a line, and this task needs {' and '.join(fields)}: "
                "write JSON lines (.jsonl) or Parquet"
            )
        self._lines = Lines(path)
        self._field = fields[0]
        self.size = self._lines.size

    def plan(self, start: int, *, first: int) -> Iterator[Chunk]:
        """Chunks of whole lines."""
        return self._lines.plan(start, first=first)

    def read(self, chunk: Chunk) -> Batch:
        """One record a line."""
        return self._lines.read(chunk, lambda line: {self._field: line.decode()})
