"""Ratios of one run, with their spread over its rounds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from app.bench.load import Answered

US = "bistil-serve"
BARE = "engine, no server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One contender under one load in one round.

    ``overhead_ms`` is a request's time beyond what its engine took, with one client: with more it waits for others.
    """

    contender: str
    load: str
    texts_per_s: float
    p50_ms: float | None = None
    overhead_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times better the first is: the geometric mean over rounds, the least and the greatest."""

    name: str
    mean: float
    low: float
    high: float


def cell(contender: str, load: str, answers: Sequence[Answered], *, seconds: float) -> Cell:
    """The figures of one closed loop of ``seconds``."""
    forwards = [
        1000 * (answer.seconds - answer.forward_s) for answer in answers if load == "1" and answer.forward_s is not None
    ]
    passed = max(answers[-1].at - min(answer.at - answer.seconds for answer in answers), seconds)
    return Cell(
        contender=contender,
        load=load,
        texts_per_s=sum(answer.n_texts for answer in answers) / passed,
        p50_ms=1000 * median(answer.seconds for answer in answers),
        overhead_ms=median(forwards) if forwards else None,
    )


def ratio(name: str, values: Sequence[float]) -> Ratio:
    """Of one ratio a round."""
    mean = math.exp(sum(map(math.log, values)) / len(values))
    return Ratio(name=name, mean=mean, low=min(values), high=max(values))


def geometric(name: str, logarithms: Sequence[float]) -> Ratio:
    """Of the logarithm of one ratio a text, with the interval of its mean."""
    mean = sum(logarithms) / len(logarithms)
    spread = math.sqrt(sum((value - mean) ** 2 for value in logarithms) / max(len(logarithms) - 1, 1))
    half = 1.96 * spread / math.sqrt(len(logarithms))
    return Ratio(
        name=f"{name} (95 % interval)", mean=math.exp(mean), low=math.exp(mean - half), high=math.exp(mean + half)
    )


def quotient(name: str, first: Ratio, second: Ratio) -> Ratio:
    """Of two means measured apart, with the interval that both of theirs make."""
    half = math.hypot(math.log(first.high / first.mean), math.log(second.high / second.mean))
    mean = first.mean / second.mean
    return Ratio(name=name, mean=mean, low=mean * math.exp(-half), high=mean * math.exp(half))


def ratios(rounds: Sequence[Sequence[Cell]], same_engine: Sequence[float]) -> list[Ratio]:
    """What the run says of this server against each other one; ``same_engine`` are logarithms, a text each."""
    by_round = [{(cell.contender, cell.load): cell for cell in cells} for cells in rounds]
    found = []
    for contender, load in by_round[0]:
        pairs = [(cells[contender, load], cells.get((US, load))) for cells in by_round]
        if contender == US or any(ours is None for _, ours in pairs):
            continue
        if contender == BARE:
            values = [ours.texts_per_s / other.texts_per_s for other, ours in pairs if ours]
            found.append(ratio(f"share of the bare engine's texts/s, {_told(load)}", values))
            continue
        if load == "1":
            values = [other.p50_ms / ours.p50_ms for other, ours in pairs if ours and ours.p50_ms and other.p50_ms]
            found.append(ratio(f"p50, 1 client, against {contender}", values))
        else:
            values = [ours.texts_per_s / other.texts_per_s for other, ours in pairs if ours]
            found.append(ratio(f"texts/s, {_told(load)}, against {contender}", values))
    found.append(geometric("student against teacher, same engine and precision, no server", same_engine))
    return found


def table(found: Sequence[Ratio], rounds: Sequence[Sequence[Cell]]) -> str:
    """Both as Markdown."""
    lines = ["| | times | least to greatest |", "|---|---|---|"]
    lines += [f"| {each.name} | {each.mean:.2f} | {each.low:.2f}-{each.high:.2f} |" for each in found]
    lines += ["", "| median of rounds | load | texts/s | p50 ms | overhead ms |", "|---|---|---|---|---|"]
    for first in rounds[0]:
        same = [
            cell for cells in rounds for cell in cells if (cell.contender, cell.load) == (first.contender, first.load)
        ]
        told = [_median([getattr(cell, name) for cell in same]) for name in ("texts_per_s", "p50_ms", "overhead_ms")]
        lines.append(f"| {first.contender} | {_told(first.load)} | {' | '.join(told)} |")
    return "\n".join(lines)


def as_json(found: Sequence[Ratio], rounds: Sequence[Sequence[Cell]], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, with what it was measured under."""
    return {
        "conditions": dict(conditions),
        "ratios": [asdict(each) for each in found],
        "rounds": [[asdict(cell) for cell in cells] for cells in rounds],
    }


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.2f}" if known else ""


def _told(load: str) -> str:
    return "lists of 32, 4 clients" if load == "list" else f"{load} client{'s' if load != '1' else ''}"
