"""Job: what to annotate and how, said once and handed to every worker."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from types import GenericAlias
from typing import Any

from pydantic import ValidationError

from app import plugins
from app.annotate.formats.base import Reader, Writer
from app.bundle import Bundle
from app.errors import ConfigError, UnknownChoice
from app.schemas.shapes import SHAPES, Shape

_FORMATS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_PACKAGE = "app.annotate.formats"
_EDGE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to annotate with one bundle. ``parameters`` are those of the task's HTTP request, as JSON.

    ``fields`` are the records' names for the fields of the task's input, in its order; an empty ``variant`` leaves the
    choice to the run, which names one before a worker is sent the job. Hashable and made of plain values, so that a
    worker anywhere can be.
    """

    path: str
    store: str
    cache: str
    language: str
    task: str
    revision: int
    output_format: str
    fields: tuple[str, ...]
    column: str
    parameters: str = "{}"
    variant: str = ""
    device: str = "cpu"
    threads: int = 1
    token_budget: int = 2048
    max_characters: int = 100_000

    @property
    def shape(self) -> Shape:
        """The shape of the job's task."""
        return SHAPES[self.task]

    def reader(self) -> Reader:
        """A reader of the file, by its suffix.

        :raises ConfigError: the file is missing, or of a format that does not suit the task.
        :raises DataError: the file is not what its suffix says, or lacks a field.
        :raises MissingExtra: the format's library is not installed.
        """
        module = plugins.load(_PACKAGE, format_of(self.path))
        if not Path(self.path).is_file():
            raise ConfigError(f"{self.path} is not a file")
        reader: Reader = module.Reader(Path(self.path), fields=self.fields, column=self.column)
        return reader

    def writer(self) -> Writer:
        """A writer of the output's format.

        :raises MissingExtra: the format's library is not installed.
        """
        several = self.task == "qa" and self.request_parameters().top_k > 1
        answer = GenericAlias(list, (self.shape.answer,)) if several else self.shape.answer
        writer: Writer = plugins.load(_PACKAGE, self.output_format).Writer(column=self.column, answer=answer)
        return writer

    def request_parameters(self) -> Any:
        """``parameters``, checked.

        :raises ConfigError: the task's request takes no such parameters.
        """
        kind = self.shape.request.model_fields["parameters"].annotation
        try:
            return kind.model_validate_json(self.parameters)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors()]
            raise ConfigError(f"--parameters: {'; '.join(faults)}") from error

    def header(self, bundle: Bundle) -> dict[str, Any]:
        """What a job that goes on must have in common with the one that began: the input and all that shapes answers.

        The input is known by its size, when it was last changed, and the sha256 of its first and its last MiB.

        :raises BundleError: the bundle has no variant of the job's.
        """
        manifest, variant = bundle.manifest, bundle.manifest.variant(self.variant)
        return {
            "input": _fingerprint(Path(self.path)),
            "variant": variant.name,
            "model": f"{self.language}/{self.task}/{self.revision}@{manifest.files[variant.file][:12]}",
            "parameters": json.loads(self.request_parameters().model_dump_json()),
            "fields": list(self.fields),
            "column": self.column,
            "format": self.output_format,
            "max_characters": self.max_characters,
        }


def format_of(path: str) -> str:
    """The format that a file name's suffix says.

    :raises UnknownChoice: it says none that is known.
    """
    suffix = Path(path).suffix
    if suffix not in _FORMATS:
        raise UnknownChoice("file suffix", suffix, _FORMATS)
    return _FORMATS[suffix]


def _fingerprint(path: Path) -> str:
    status = path.stat()
    with path.open("rb") as file:
        edges = hashlib.sha256(file.read(_EDGE_BYTES))
        file.seek(max(status.st_size - _EDGE_BYTES, 0))
        edges.update(file.read(_EDGE_BYTES))
    return f"{status.st_size} bytes, changed at {status.st_mtime_ns} ns, {edges.hexdigest()[:16]}"
