"""Parquet, through pyarrow. Until the end, answers are Arrow streams one after the other, which can be appended to."""

import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from app.annotate.formats.base import CHUNK_BYTES, CHUNK_RECORDS, Batch, Chunk
from app.errors import DataError

_MISFITS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)
_ROW_GROUP_BYTES = 64 * 1024 * 1024
_SCALARS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class Reader:
    """Each row is a record. A chunk lies within one row group, and one row group is held at a time."""

    def __init__(self, path: Path, *, fields: tuple[str, ...], column: str) -> None:
        """Open the file.

        :raises DataError: it is not Parquet, lacks one of ``fields`` or has a ``column`` already.
        """
        try:
            self._file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise DataError(f"{path} is not a Parquet file: {error}") from error
        names = self._file.schema_arrow.names
        if missing := [name for name in fields if name not in names]:
            raise DataError(f"{path} lacks the column {missing[0]!r}; it has: {', '.join(names)}")
        if column in names:
            raise DataError(f"{path} has a column {column!r} already: name another with --column")
        self._fields = list(fields)
        self._ends: list[int] = []
        for index in range(self._file.num_row_groups):
            self._ends.append((self._ends or [0])[-1] + self._file.metadata.row_group(index).num_rows)
        self._group: tuple[int, Any] = (-1, None)
        self.size = self._file.metadata.num_rows

    def plan(self, start: int, *, first: int) -> Iterator[Chunk]:
        """Rows of one group each, as many as hold ``CHUNK_BYTES`` on average, at most ``CHUNK_RECORDS``."""
        for index, end in enumerate(self._ends):
            metadata = self._file.metadata.row_group(index)
            n_rows = max(min(CHUNK_BYTES * metadata.num_rows // max(metadata.total_byte_size, 1), CHUNK_RECORDS), 1)
            while start < end:
                stop = min(start + n_rows, end)
                yield Chunk(first=start, n=stop - start, start=start, end=stop)
                start = stop

    def read(self, chunk: Chunk) -> Batch:
        """The rows' fields, and the rows as a table."""
        index = next(index for index, end in enumerate(self._ends) if chunk.start < end)
        if self._group[0] != index:
            self._group = (-1, None)
            self._group = (index, self._file.read_row_group(index))
        begin = self._ends[index] - self._group[1].num_rows
        table = self._group[1].slice(chunk.start - begin, chunk.n)
        return Batch(table.select(self._fields).to_pylist(), table)


class Writer:
    """Each record as a row with one more column, of the type ``answer``."""

    def __init__(self, *, column: str, answer: Any) -> None:
        self._field = pa.field(column, arrow_type(answer))

    def render(self, batch: Batch, answers: Mapping[int, Any]) -> bytes:
        """An Arrow stream; none where no record has an answer.

        :raises DataError: values of one field have no type in common, or there is none for them.
        """
        if not answers:
            return b""
        places = list(answers)
        table = _table([batch.records[place] for place in places]) if batch.table is None else batch.table.take(places)
        table = table.append_column(self._field, pa.array(answers.values(), type=self._field.type))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return bytes(sink.getvalue())

    def complete(self, partial: Path) -> Path:
        """One Parquet file of all streams; a field that is null or whole here and a number there becomes the wider.

        :raises DataError: there is no wider type, or Parquet has none such.
        """
        complete = partial.with_suffix(".complete")
        try:
            self._write(partial, complete)
        except _MISFITS as error:
            complete.unlink(missing_ok=True)
            raise DataError(f"the records do not fit into one table, write JSON lines instead: {error}") from error
        with complete.open("rb") as file:
            os.fsync(file.fileno())
        return complete

    def _write(self, partial: Path, complete: Path) -> None:
        schema = pa.unify_schemas([pa.schema([self._field]), *_schemas(partial)], promote_options="permissive")
        names = [name for name in schema.names if name != self._field.name]
        schema = pa.schema([*(schema.field(name) for name in names), self._field])
        with pq.ParquetWriter(complete, schema) as writer:
            tables: list[Any] = []
            for table in _tables(partial):
                tables.append(_fit(table, schema))
                if sum(table.nbytes for table in tables) >= _ROW_GROUP_BYTES:
                    writer.write_table(pa.concat_tables(tables))
                    tables = []
            if tables:
                writer.write_table(pa.concat_tables(tables))


def arrow_type(kind: Any) -> Any:
    """The Arrow type of an answer: lists, pydantic models as structs, optional and plain values."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return pa.list_(arrow_type(arguments[0]))
    if origin in (types.UnionType, typing.Union):
        return arrow_type(next(part for part in arguments if part is not type(None)))
    if issubclass(kind, BaseModel):
        return pa.struct([(name, arrow_type(field.annotation)) for name, field in kind.model_fields.items()])
    return _SCALARS[kind]


def _table(records: Sequence[Any]) -> Any:
    names = dict.fromkeys(name for record in records for name in record)
    return pa.table({name: _array(name, [record.get(name) for record in records]) for name in names})


def _array(name: str, values: list[Any]) -> Any:
    try:
        return pa.array(values)
    except _MISFITS as error:
        raise DataError(
            f"the field {name!r} does not fit into a column of Parquet, write JSON lines instead: {error}"
        ) from error


def _fit(table: Any, schema: Any) -> Any:
    columns = [
        table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema)


def _schemas(path: Path) -> Iterator[Any]:
    seen = None
    for table in _tables(path):
        if table.schema != seen:
            seen = table.schema
            yield seen


def _tables(path: Path) -> Iterator[Any]:
    with pa.OSFile(str(path)) as file:
        while file.tell() < file.size():
            with pa.ipc.open_stream(file) as stream:
                yield stream.read_all()
