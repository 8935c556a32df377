"""The loop: plan the rest of the file, let a runner annotate it, commit what comes back in order."""

import functools
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from app import plugins
from app.annotate.annotator import SHOWN_FAULTS, Result, peak_bytes
from app.annotate.formats.base import Chunk
from app.annotate.job import Job
from app.annotate.output import Mark, Output, begun_with, clear_finished
from app.annotate.progress import Progress
from app.bundle import Bundle
from app.choice import choose
from app.errors import DataError
from app.store import Location, ModelStore

Runner = Callable[[Job, Iterable[Chunk]], Generator[Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did. ``engine_share`` is the part of the workers' time that their engines ran: the share that this
    run's rate is of the rate of the bare engine on the same micro-batches."""

    mark: Mark
    n_resumed: int
    n_tokens: int
    seconds: float
    engine_share: float
    peak_bytes: int
    worker_peak_bytes: int


def annotate(
    job: Job, target: Path, *, runner: Runner, skip: bool = False, every_s: float = 10.0, stream: TextIO
) -> Summary | None:
    """Annotate the job's file into ``target``, from where an earlier run of the same job stopped.

    None where the earlier run had finished but for the removal of its journal. With ``skip`` records at fault are left
    out, counted, and the first of them named on ``stream``.

    :raises DataError: a record is at fault, and ``skip`` is false; the chunks before it are kept.
    :raises BistilError: the input, the output or the model cannot be used.
    """
    if clear_finished(target):
        return None
    bundle = Bundle.open(
        ModelStore(job.store, cache=Path(job.cache)).fetch(Location(job.language, job.task, job.revision))
    )
    reader, writer = job.reader(), job.writer()
    job = _on_one_variant(job, bundle, begun=begun_with(target), stream=stream)
    output = Output.open(target, header=job.header(bundle))
    try:
        begun_at = output.mark
        progress = Progress(size=reader.size, begun_at=begun_at, stream=stream, every_s=every_s)
        if begun_at.n_records:
            print(f"going on after record {begun_at.n_records:,}", file=stream)
        chunks = reader.plan(begun_at.position, first=begun_at.n_records)
        with closing(runner(job, chunks)) as results:
            for result in results:
                if result.n_faults:
                    n_before = output.mark.n_faults - begun_at.n_faults
                    _report(result, job=job, skip=skip, n_before=n_before, stream=stream)
                chunk = result.chunk
                output.commit(result.data, position=chunk.end, n_records=chunk.n, n_faults=result.n_faults)
                progress.add(result, output.mark)
        output.finish(writer)
    finally:
        output.close()
    return Summary(
        mark=output.mark,
        n_resumed=begun_at.n_records,
        n_tokens=progress.n_tokens,
        seconds=progress.seconds,
        engine_share=progress.engine_s / progress.busy_s if progress.busy_s else 0.0,
        peak_bytes=peak_bytes(),
        worker_peak_bytes=progress.worker_peak_bytes,
    )


def on_this_machine(*, workers: int) -> Runner:
    """A runner of ``workers`` processes."""
    return functools.partial(plugins.load("app.annotate.runners", "processes").run, workers=workers)


def on_ray(*, workers: int, address: str) -> Runner:
    """A runner of ``workers`` actors on a Ray cluster.

    :raises MissingExtra: Ray is not installed.
    """
    return functools.partial(plugins.load("app.annotate.runners", "ray").run, workers=workers, address=address)


def _on_one_variant(job: Job, bundle: Bundle, *, begun: Mapping[str, Any], stream: TextIO) -> Job:
    """The job with the variant that it names, that an earlier run began with, or that is the fastest here."""
    names = [variant.name for variant in bundle.manifest.variants]
    if job.variant:
        return job
    if begun.get("variant") in names:
        return replace(job, variant=begun["variant"])
    if len(names) == 1:
        return replace(job, variant=names[0])
    choice = choose(bundle, device=job.device, threads=job.threads)
    choice.engine.close()
    print(f"variant {choice.variant.name}: {choice.reason}", file=stream)
    return replace(job, variant=choice.variant.name)


def _report(result: Result, *, job: Job, skip: bool, n_before: int, stream: TextIO) -> None:
    if not skip:
        fault = result.faults[0]
        raise DataError(f"{job.path}, record {fault.number}: {fault.message} (--on-error skip leaves such records out)")
    for fault in result.faults[: max(SHOWN_FAULTS - n_before, 0)]:
        print(f"left out record {fault.number}: {fault.message}", file=stream)
    if n_before < SHOWN_FAULTS <= n_before + result.n_faults:
        print("further records left out are counted only", file=stream)
