"""``python -m app.annotate``: the command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app.annotate.job import Job, format_of
from app.annotate.run import Runner, Summary, annotate, on_ray, on_this_machine
from app.errors import BistilError, ConfigError, UnknownChoice
from app.schemas.shapes import SHAPES
from app.settings import Settings, cpus
from app.store import ModelStore

_GPU_WORKERS = 2  # one encodes and decodes while the other's batch is on the GPU

_EPILOG = """
examples:
  python -m app.annotate corpus.txt tagged.jsonl --lang ha --task ner
  python -m app.annotate pairs.jsonl judged.jsonl --lang ha --task nli --fields premise,hypothesis --on-error skip
  python -m app.annotate texts.parquet tagged.parquet --lang ha --task pos --workers 8

Killed at any moment, the same command goes on where it was. Exit codes: 0 complete, 1 the model or the disk failed,
2 the input, a flag or the installation has to change first, 130 stopped by Ctrl-C. docs/bulk.md has more.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Annotate one file.

    Returns 0 when it is complete, 2 where the input, the flags or the installation are at fault, 1 where the model or
    the disk failed, 130 after Ctrl-C. In all but the first case the same command goes on where it was.
    """
    options = _parser().parse_args(argv)
    try:
        job = _job(options)
        summary = annotate(
            job,
            options.output,
            runner=_runner(options, job),
            skip=options.on_error == "skip",
            every_s=options.progress_s,
            stream=sys.stderr,
        )
    except (BistilError, OSError) as error:
        code: int = getattr(error, "exit_code", 1)
        print(f"annotate: {error}{'; the same command goes on where it was' if code == 1 else ''}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print("annotate: stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    print(_text(summary), file=sys.stderr)
    return 0


def _job(options: argparse.Namespace) -> Job:
    given = {name: value for name in ("store", "variant", "device", "threads") if (value := getattr(options, name))}
    settings = Settings.read(**given)
    locations = ModelStore(settings.store, cache=settings.cache_folder).find(
        languages=[options.lang], tasks=[options.task]
    )
    (location,) = locations
    if options.task not in SHAPES:
        raise UnknownChoice("task", options.task, SHAPES)
    output_format = format_of(str(options.output))
    if output_format == "text":
        raise ConfigError(f"{options.output}: answers are written as JSON lines (.jsonl) or Parquet (.parquet)")
    fields = tuple(options.fields.split(",")) if options.fields else SHAPES[options.task].fields
    if len(fields) != len(expected := SHAPES[options.task].fields):
        raise ConfigError(f"--fields: the task {options.task} needs {len(expected)}, for {', '.join(expected)}")
    return Job(
        path=str(options.input.resolve()),
        store=settings.store if "://" in settings.store else str(Path(settings.store).resolve()),
        cache=str(settings.cache_folder),
        language=location.language,
        task=location.task,
        revision=location.revision,
        output_format=output_format,
        fields=fields,
        column=options.column or options.task,
        parameters=options.parameters,
        variant=settings.variant,
        device=settings.device,
        threads=settings.threads or 1,
        token_budget=options.token_budget,
        max_characters=settings.max_characters,
    )


def _runner(options: argparse.Namespace, job: Job) -> Runner:
    if options.ray:
        return on_ray(workers=options.workers, address=options.ray)
    default = max(cpus() // job.threads, 1) if job.device == "cpu" else _GPU_WORKERS
    return on_this_machine(workers=options.workers or default)


def _text(summary: Summary | None) -> str:
    if summary is None:
        return "complete; an earlier run was stopped at its very end"
    mark, seconds = summary.mark, max(summary.seconds, 1e-9)
    n_records = mark.n_records - summary.n_resumed
    return (
        f"complete: {mark.n_records:,} records, {mark.n_faults:,} of them left out; this run {n_records:,} in "
        f"{seconds:.1f} s, {n_records / seconds:,.0f} records/s, {summary.n_tokens / seconds:,.0f} tokens/s, "
        f"{100 * summary.engine_share:.0f} % of the bare engine's rate\n"
        f"peak memory: {summary.peak_bytes / 1e6:.0f} MB here, {summary.worker_peak_bytes / 1e6:.0f} MB in a worker"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app.annotate",
        description="Annotate a file: plain text (.txt), JSON lines (.jsonl) or Parquet to JSON lines or Parquet.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("input", type=Path, help="one record a line or row")
    add("output", type=Path, help="each record with its answer in one more field, .jsonl or .parquet")
    add("--lang", required=True, help="language of the model, for example ha")
    add("--task", required=True, help=f"one of: {', '.join(SHAPES)}")
    add("--store", help="model store: a folder, s3://... or hf://... (default: as bistil-serve)")
    add("--variant", help="variant of the model, for example fp32 (default: that of the journal, or the fastest here)")
    add("--device", help="cpu, cuda or cuda:<n> (default: cpu)")
    add("--threads", type=int, help="threads of each worker's engine (default: 1)")
    add(
        "--workers", type=_positive, default=0, help="processes, or actors with --ray (default: one a CPU of the quota)"
    )
    add("--ray", metavar="ADDRESS", help="run on this Ray cluster: an address, auto, or local")
    add("--token-budget", type=_positive, default=2048, help="rows * longest row of a micro-batch (default: 2048)")
    add("--fields", help="the records' names for the task's fields, comma-separated (default: those of its HTTP input)")
    add("--column", help="the field the answer goes to (default: the task's name)")
    add("--parameters", default="{}", help="the HTTP request's parameters, as JSON")
    add("--on-error", choices=("stop", "skip"), default="stop", help="at a bad record: stop, or leave it out and count")
    add("--progress-s", type=float, default=10.0, help="seconds between lines of progress (default: 10)")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
