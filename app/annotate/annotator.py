"""Annotator: a chunk of a job's file in, its annotated records as bytes out. Every worker has one."""

import gc
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from pydantic import ValidationError

from app.annotate.formats.base import Chunk, Fault, Reader, Record, Writer
from app.annotate.job import Job
from app.engines.base import Engine
from app.errors import InputTooLong
from app.predictor import Predictor
from app.rows import Tensors
from app.store import Location, ModelStore

SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One annotated chunk.

    ``faults`` are the first of ``n_faults`` records left out. ``engine_s`` is the part of ``busy_s`` that the engine
    ran, ``peak_bytes`` the most memory that the worker has held so far.
    """

    chunk: Chunk
    data: bytes
    faults: tuple[Fault, ...]
    n_faults: int
    n_tokens: int
    engine_s: float
    busy_s: float
    peak_bytes: int


class Annotator:
    """Reads a chunk, validates it as one request of the server, predicts, and renders the server's own answers."""

    def __init__(self, job: Job, *, reader: Reader, writer: Writer, predictor: Predictor[Any, Any]) -> None:
        self._job = job
        self._reader = reader
        self._writer = writer
        self._predictor = predictor
        self._codec = predictor.task
        self._parameters = job.request_parameters()
        self._engine = _Timed(predictor.engine)
        predictor.engine = cast(Engine, self._engine)

    @classmethod
    def open(cls, job: Job) -> Self:
        """Fetch the job's bundle and load its variant, which the job must name.

        :raises BistilError: the bundle, the engine or the file cannot be used.
        """
        location = Location(job.language, job.task, job.revision)
        folder = ModelStore(job.store, cache=Path(job.cache)).fetch(location)
        predictor = Predictor[Any, Any].open(folder, variant=job.variant, device=job.device, threads=job.threads)
        predictor.token_budget = job.token_budget
        gc.freeze()  # what is there now stays, and need not be walked through at every collection
        return cls(job, reader=job.reader(), writer=job.writer(), predictor=predictor)

    def annotate(self, chunk: Chunk) -> Result:
        """The chunk's records with their answers, without those that are at fault.

        :raises EngineError: the model failed.
        """
        started, engine_s, n_tokens = time.perf_counter(), self._engine.seconds, self._engine.n_tokens
        batch = self._reader.read(chunk)
        faults: list[Fault] = []
        inputs: dict[int, Any] = {}
        for place, record in enumerate(batch.records):
            if isinstance(record, Fault):
                faults.append(record)
                continue
            try:
                inputs[place] = self._input(record)
            except ValueError as error:
                faults.append(Fault(chunk.first + place + 1, str(error)))
        answers, reasons = self._answer(inputs)
        faults.extend(Fault(chunk.first + place + 1, reason) for place, reason in reasons.items())
        data = self._writer.render(batch, answers)
        return Result(
            chunk=chunk,
            data=data,
            faults=tuple(sorted(faults, key=lambda fault: fault.number)[:SHOWN_FAULTS]),
            n_faults=len(faults),
            n_tokens=self._engine.n_tokens - n_tokens,
            engine_s=self._engine.seconds - engine_s,
            busy_s=time.perf_counter() - started,
            peak_bytes=peak_bytes(),
        )

    def _input(self, record: Record) -> Any:
        if missing := [name for name in self._job.fields if name not in record]:
            raise ValueError(f"lacks the field {missing[0]!r}")
        if self._job.column in record:
            raise ValueError(f"has a field {self._job.column!r} already: name another with --column")
        values = [record[name] for name in self._job.fields]
        longest = max((len(value) for value in values if isinstance(value, str)), default=0)
        if longest > self._job.max_characters:
            raise ValueError(f"has a text of {longest} characters, more than {self._job.max_characters}")
        return values[0] if len(values) == 1 else dict(zip(self._job.shape.fields, values, strict=True))

    def _answer(self, inputs: Mapping[int, Any]) -> tuple[dict[int, Any], dict[int, str]]:
        """The answers, and for inputs that cannot be answered the reasons; both under the inputs' keys."""
        if not inputs:
            return {}, {}
        try:
            request = self._request(list(inputs.values()))
            predictions = self._predictor.predict(request.items())
        except (ValidationError, InputTooLong):
            reasons = {place: reason for place, value in inputs.items() if (reason := self._reason(value))}
            if not reasons:
                raise
            answers, _ = self._answer({place: value for place, value in inputs.items() if place not in reasons})
            return answers, reasons
        return dict(zip(inputs, request.answer(predictions), strict=True)), {}

    def _reason(self, value: Any) -> str | None:
        try:
            for item in self._request([value]).items():
                self._predictor.task.encode(item, self._predictor.tokenizer)
        except InputTooLong as error:
            return str(error)
        except ValidationError as error:
            found = next(item for item in error.errors() if 0 in item["loc"])
            name = found["loc"][-1]
            field = self._job.fields[self._job.shape.fields.index(name)] if name in self._job.shape.fields else ""
            return f"{field or self._job.fields[0]}: {found['msg']}"
        return None

    def _request(self, values: list[Any]) -> Any:
        request = self._job.shape.request(inputs=values, parameters=self._parameters)
        self._predictor.task = request.adjust(self._codec)
        return request


def peak_bytes() -> int:
    """The most memory this process has held at a time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Timed:
    """An engine's run, with its seconds and its tokens, padding left out, counted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seconds = 0.0
        self.n_tokens = 0

    def run(self, inputs: Tensors) -> Tensors:
        started = time.perf_counter()
        outputs = self._engine.run(inputs)
        self.seconds += time.perf_counter() - started
        self.n_tokens += int(inputs["attention_mask"].sum())
        return outputs
