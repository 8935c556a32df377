"""The command line of the benchmark."""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.bench import contenders, report
from app.bench.engine import BareEngine, log_ratios
from app.bench.live import PAUSE_S, live
from app.bench.load import Body, closed_loop
from app.bench.texts import texts
from app.bundle import Bundle, revisions
from app.errors import BistilError, ConfigError
from app.settings import cpus

LANGUAGE, TASK = "qaa", "ner"
MODELS = ("mbert", "embedded")
STORE = Path(__file__).parents[2] / "model_store"
LIST_OF = 32
LIST_CLIENTS = 4
_N_TEXTS = 512
_LONGEST = 254
_EXPLANATION = """
Both models have random weights, since speed does not depend on them. The load generator is on the same machine and
takes its share of it. The pipelines run in torch in float32, as they come; this server and the bare engine run the
bundle's variant.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its ratios; 0, or the exit code of what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m app.bench", description=__doc__, epilog=_EXPLANATION)
    parser.add_argument("--models", default="mbert,embedded", help="mbert, embedded, or both (default: %(default)s)")
    parser.add_argument("--student", help="<layers>x<hidden size>x<pieces>, or a folder, instead of --models")
    parser.add_argument("--teacher", help="the same")
    parser.add_argument("--variant", default="", help="variant to serve (none: the server's choice)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load on each server in each round")
    parser.add_argument("--quick", action="store_true", help="1 round, and of --models the first alone")
    parser.add_argument("--threads", type=int, default=cpus(), help="of every engine")
    parser.add_argument("--live", action="store_true", help="read the live proof from a Prometheus, too")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args(arguments)
    try:
        chosen = _chosen(options)
        found = {name: _measure(*specs, options=options) for name, specs in chosen.items()}
    except BistilError as error:
        print(f"app.bench: {error}", file=sys.stderr)
        return error.exit_code
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def specs(name: str) -> tuple[str, str]:
    """The student and the teacher of one of ``MODELS``; embedded is the newest revision there is.

    :raises ConfigError: there is none.
    """
    if name == "mbert":
        return "6x768x25000", "12x768x120000"
    folder = STORE / "ha" / "ner"
    if not (numbers := revisions(folder)):
        raise ConfigError(f"{folder} holds no bundle: name a --student and a --teacher")
    return str(folder / str(numbers[-1])), str(STORE / "mmt-mini")


def _chosen(options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    if options.student or options.teacher:
        if not options.student or not options.teacher:
            raise ConfigError("--student and --teacher go together")
        return {options.student: (options.student, options.teacher)}
    names = options.models.split(",")
    for name in names:
        if name not in MODELS:
            raise ConfigError(f"unknown models {name!r}; choose from: {', '.join(MODELS)}")
    return {name: specs(name) for name in (names[:1] if options.quick else names)}


def _measure(student: str, teacher: str, *, options: argparse.Namespace) -> dict[str, Any]:
    started = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bistil-bench-")))
        _say(f"making {student} and {teacher}")
        make = [sys.executable, "-m", "distill.random_models", str(folder), "--student", student, "--teacher", teacher]
        made = subprocess.run(make, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ConfigError(f"the models cannot be made: {made.stderr[-2000:]}")
        bundle = Bundle.open(folder / "store" / LANGUAGE / TASK / "1")
        longest = min(_LONGEST, bundle.manifest.max_length - 2)
        asked = texts(bundle.tokenizer(), _N_TEXTS, longest=longest)
        loads = _loads(asked)

        def bare(name: str, variant: str) -> BareEngine:
            return BareEngine(folder / name / LANGUAGE / TASK / "1", asked, variant=variant, threads=options.threads)

        own = bare("store", options.variant)
        teachers = bare("teachers", own.variant)
        running = []
        for contender in contenders.contenders(
            folder, language=LANGUAGE, task=TASK, variant=own.variant, threads=options.threads
        ):
            _say(f"starting {contender.name}")
            server = contenders.start(contender)
            stack.callback(server.close)
            server.wait(loads["1"][0])
            server.stop()
            running.append(server)
        rounds = []
        for number in range(1 if options.quick else options.rounds):
            _say(f"round {number + 1}")
            turn = running[number % len(running) :] + running[: number % len(running)]
            cells = [cell for server in turn for cell in _serve(server, loads, seconds=options.seconds)]
            for load, waiting in (("1", 1), ("64", 64), ("list", LIST_OF)):
                speed = own.texts_per_s(waiting=waiting, seconds=options.seconds)
                cells.append(report.Cell(contender=report.BARE, load=load, texts_per_s=speed))
            rounds.append(sorted(cells, key=lambda cell: cell.contender != report.US))
        same = log_ratios(teachers, own, seconds=2 * options.seconds)
        found = report.ratios(rounds, same)
        if options.live:
            _say("live proof")
            paused = log_ratios(teachers, own, seconds=10 * options.seconds, pause_s=PAUSE_S)
            proof = live(
                folder / "store",
                folder / "teachers",
                loads["1"],
                path=running[0].contender.path,
                variant=own.variant,
                threads=options.threads,
                seconds=10 * options.seconds,
            )
            offline = report.geometric("the same, with the pauses of the live proof", paused)
            found += [offline, proof, report.quotient("the live proof / no server (95 % interval)", proof, offline)]
    conditions = {
        "student": student,
        "teacher": teacher,
        "variant": own.variant,
        "threads": options.threads,
        "seconds": options.seconds,
        "machine": f"{platform.machine()}, {cpus()} CPUs",
        "load_generator": "on the same machine",
        "took_s": round(time.monotonic() - started),
    }
    print(f"\n{student} against {teacher}, variant {own.variant}, {options.threads} threads, {conditions['took_s']} s")
    print(_EXPLANATION)
    print(report.table(found, rounds))
    return report.as_json(found, rounds, conditions)


def _loads(asked: Sequence[str]) -> dict[str, list[Body]]:
    one = contenders.single(asked)
    return {"1": one, "8": one, "64": one, "list": contenders.lists(asked, size=LIST_OF)}


def _serve(server: contenders.Running, loads: dict[str, list[Body]], *, seconds: float) -> list[report.Cell]:
    name = server.contender.name
    found = []
    server.go_on()
    for load in server.contender.loads:
        n_clients = LIST_CLIENTS if load == "list" else int(load)
        closed_loop(server.url, loads[load], n_clients=n_clients, seconds=min(0.5, seconds))
        answers = closed_loop(server.url, loads[load], n_clients=n_clients, seconds=seconds)
        found.append(report.cell(name, load, answers, seconds=seconds))
    server.stop()
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
