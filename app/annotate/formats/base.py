"""The format seam: a file as chunks of records, annotated records as bytes. Here too: files of lines."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from app.errors import DataError

CHUNK_BYTES = 256 * 1024
CHUNK_RECORDS = 1024
_LINE_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """``n`` records after the ``first``, at positions ``start`` to ``end``: bytes of lines, rows of a Parquet file."""

    first: int
    n: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record cannot be annotated; ``number`` counts from 1."""

    number: int
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A chunk's records, or what is wrong with them; ``table`` is their Arrow original where they have one."""

    records: list[Record | Fault]
    table: Any = None


class Reader(Protocol):
    """A file of records. ``plan`` depends on the position alone, so that a job goes on with the same chunks."""

    size: int

    def __init__(self, path: Path, *, fields: tuple[str, ...], column: str) -> None: ...

    def plan(self, start: int, *, first: int) -> Iterator[Chunk]:
        """The chunks from position ``start`` on, which is that of record ``first``."""
        ...

    def read(self, chunk: Chunk) -> Batch:
        """The records of a chunk; of each at least the fields."""
        ...


class Writer(Protocol):
    """Annotated records as bytes that can be appended to each other, and what those bytes become in the end."""

    def __init__(self, *, column: str, answer: Any) -> None: ...

    def render(self, batch: Batch, answers: Mapping[int, Any]) -> bytes:
        """The records of ``batch`` that have an answer, under their places in it, with the answer in ``column``.

        :raises DataError: the format cannot hold a value of theirs.
        """
        ...

    def complete(self, partial: Path) -> Path:
        """Make the output of the appended bytes, on the disk and beside them; it may be the same file.

        :raises DataError: the records do not fit into one table.
        """
        ...


class Lines:
    """A file of one record a line, UTF-8. The last line needs no line break."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size

    def plan(self, start: int, *, first: int) -> Iterator[Chunk]:
        """Chunks of whole lines, at most ``CHUNK_RECORDS`` and, unless it is one line, ``CHUNK_BYTES``."""
        with self.path.open("rb") as file:
            while start < self.size:
                file.seek(start)
                block = file.read(min(CHUNK_BYTES, self.size - start))
                *lines, rest = block.split(b"\n", CHUNK_RECORDS)
                n, length = len(lines), len(block) - len(rest)
                if rest and n < CHUNK_RECORDS and start + len(block) == self.size:
                    n, length = n + 1, len(block)
                if n == 0:
                    n, length = 1, self._line_length(start)
                yield Chunk(first=first, n=n, start=start, end=start + length)
                start, first = start + length, first + n

    def read(self, chunk: Chunk, parse: Callable[[bytes], Record]) -> Batch:
        """Each line through ``parse``, whose ``ValueError`` makes it a fault.

        :raises DataError: the file is not what it was when it was planned.
        """
        if chunk.end - chunk.start > _LINE_BYTES:
            return Batch([Fault(chunk.first + 1, f"has {chunk.end - chunk.start} bytes, more than {_LINE_BYTES}")])
        with self.path.open("rb") as file:
            file.seek(chunk.start)
            data = file.read(chunk.end - chunk.start)
        lines = data.removesuffix(b"\n").split(b"\n")
        if len(data) != chunk.end - chunk.start or len(lines) != chunk.n:
            raise DataError(f"{self.path} changed while it was read")
        if chunk.start == 0:
            lines[0] = lines[0].removeprefix(_BOM)
        records: list[Record | Fault] = []
        for number, line in enumerate(lines, start=chunk.first + 1):
            try:
                records.append(parse(line.removesuffix(b"\r")))
            except UnicodeDecodeError as error:
                records.append(Fault(number, f"is not UTF-8 at byte {error.start + 1}"))
            except ValueError as error:
                records.append(Fault(number, str(error)))
        return Batch(records)

    def _line_length(self, start: int) -> int:
        with self.path.open("rb") as file:
            file.seek(start)
            length = 0
            while block := file.read(CHUNK_BYTES):
                end = block.find(b"\n")
                if end >= 0:
                    return length + end + 1
                length += len(block)
        return length
