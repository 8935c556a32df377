"""What `compare` found, as one table: JSON for programs, Markdown for people."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from distill import stage
from distill.bootstrap import Resampled, resample
from distill.finding import Finding
from distill.report import markdown_table
from distill.tasks.base import training_task

_SEED = 0


def collect(findings: Sequence[Finding], *, of: int) -> dict[str, Any]:
    """Everything about these finished cells `of` that many.

    A score is the mean over seeds, its interval the 95 % bootstrap over test items; differences between methods are
    paired: both are resampled on the same items.
    """
    methods: dict[str, Any] = {}
    for method in dict.fromkeys(finding.method for finding in findings):
        methods[method] = {**_costs([finding for finding in findings if finding.method == method]), "tasks": {}}
    differences: dict[str, list[dict[str, Any]]] = {}
    for task in dict.fromkeys(finding.task for finding in findings):
        of_task = [finding for finding in findings if finding.task == task]
        weights = resample(len(of_task[0].terms[0]), seed=_SEED)
        scores: dict[str, Resampled] = {}
        for method in dict.fromkeys(finding.method for finding in of_task):
            mine = [finding for finding in of_task if finding.method == method]
            scores[method], methods[method]["tasks"][task] = _scores(mine, weights)
        differences[task] = [
            {"methods": [one, other], **_told("difference", scores[one] - scores[other])}
            for one, other in combinations(scores, 2)
        ]
    return {
        "target": findings[0].target,
        "cells": of,
        "finished": len(findings),
        "metrics": {task: training_task(task).main_metric for task in differences},
        "methods": methods,
        "differences": differences,
    }


def write(found: Mapping[str, Any], folder: Path, *, command: str) -> None:
    """`results.json` and `results.md` in the folder, each whole or as it was."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"command": command, **found}
    for name, text in (("results.json", json.dumps(told, indent=1) + "\n"), ("results.md", markdown(told))):
        stage.write(folder / name, text)


def markdown(found: Mapping[str, Any]) -> str:
    """The table, the paired differences, and how to read them."""
    tasks = found["metrics"]
    header = ["method", "parameters", "MB", "GFLOPs", "times faster", "tokens", "minutes"]
    header += [column for task, metric in tasks.items() for column in (f"{task} {metric}", "kept")]
    rows = [_row(f"teacher{name}", told, tasks) for name, told in _teachers(found["methods"])]
    rows += [_row(name, told, tasks) for name, told in found["methods"].items()]
    parts = [
        f"Target language `{found['target']}`, {found['finished']} of {found['cells']} cells finished.",
        markdown_table(header, rows),
        "A score is the mean over the seeds ± their standard deviation, with the 95 % bootstrap interval over test "
        "items; `kept` is the share of the teacher's score in percent, with its interval. GFLOPs are those of 128 "
        "tokens through the encoder. `times faster` than the teacher is under ONNX Runtime in fp32, one text a "
        "call, in turns with it. Tokens and minutes are a seed's, over phase 1 and the phase 2 of every task.",
    ]
    differences = [
        (task, " - ".join(pair["methods"]), pair["difference"], f"{pair['low']:.2f} to {pair['high']:.2f}")
        for task, pairs in found["differences"].items()
        for pair in pairs
    ]
    if differences:
        parts += [
            "Differences between methods, paired on the same items:",
            markdown_table(("task", "methods", "difference", "95 % interval"), differences),
        ]
    return "\n\n".join([*parts, f"Made by `{found['command']}`."]) + "\n"


def _teachers(methods: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each teacher once, as a row: the first without a name of its own, others by the method that has it."""
    seen: list[dict[str, Any]] = []
    for name, told in methods.items():
        scores = {task: entry["teacher"] for task, entry in told["tasks"].items()}
        if not any(scores.items() <= known.items() for known in seen):
            seen.append(scores)
            yield (f" of {name}" if len(seen) > 1 else ""), {**told.get("teacher", {}), "tasks": scores}


def _row(name: str, told: Mapping[str, Any], tasks: Mapping[str, str]) -> list[str]:
    speed = told.get("speed")
    row = [
        name,
        f"{told['parameters'] / 1e6:.1f} M" if "parameters" in told else "",
        f"{told['bytes'] / 1e6:.1f}" if "bytes" in told else "",
        f"{told['flops'] / 1e9:.2f}" if "flops" in told else "",
        f"{speed['speedup']:.2f} ({speed['low']:.2f}-{speed['high']:.2f})" if speed else "",
        f"{told['tokens'] / 1e6:.2f} M" if "tokens" in told else "",
        f"{told['seconds'] / 60:.1f}" if "seconds" in told else "",
    ]
    for task in tasks:
        score = told["tasks"].get(task)
        row.append(_score_cell(score) if score else "")
        kept = score and "kept" in score
        row.append(f"{score['kept']:.1f} ({score['kept_low']:.1f}-{score['kept_high']:.1f})" if kept else "")
    return row


def _score_cell(score: Mapping[str, Any]) -> str:
    spread = f" ± {score['deviation']:.1f}" if "deviation" in score else ""
    return f"{score['score']:.1f}{spread} ({score['low']:.1f}-{score['high']:.1f})"


def _costs(findings: Sequence[Finding]) -> dict[str, Any]:
    """Size and speed from the cell that was timed; tokens and seconds of phase 1 and 2, a mean over seeds."""
    costs: dict[str, Any] = {}
    timed = next((finding.efficiency for finding in findings if finding.efficiency), None)
    if timed is not None:
        costs = {**timed["student"], "speed": timed["speed"], "teacher": timed["teacher"]}
    seeds = {finding.seed: finding for finding in findings}
    for key in ("tokens", "seconds"):
        spent = sum(finding.spent["phase2"][key] for finding in findings)
        spent += sum(finding.spent["phase1"][key] for finding in seeds.values())
        costs[key] = spent / len(seeds)
    return costs


def _scores(findings: Sequence[Finding], weights: np.ndarray) -> tuple[Resampled, dict[str, Any]]:
    """One method on one task: its score, and what the table says of it and of its teacher."""
    runs = np.stack([np.transpose(finding.terms) for finding in findings])
    score = Resampled.of(runs, weights)
    teacher = Resampled.of(np.stack([np.transpose(finding.teacher_terms) for finding in findings]), weights)
    seeds = {f.seed: Resampled.of(run[None], weights).value for f, run in zip(findings, runs, strict=True)}
    told: dict[str, Any] = {**_told("score", score), "seeds": seeds}
    if len(seeds) > 1:
        told["deviation"] = float(np.std(list(seeds.values()), ddof=1))
    kept = score.share_of(teacher)
    if kept is not None:
        low, high = kept.interval
        told |= {"kept": kept.value, "kept_low": low, "kept_high": high}
    return score, {**told, "teacher": _told("score", teacher)}


def _told(name: str, figure: Resampled) -> dict[str, float]:
    low, high = figure.interval
    return {name: figure.value, "low": low, "high": high}
