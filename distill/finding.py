"""What a finished cell of a comparison tells, as one small file: all that its tables and plots need."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import DataError
from distill import stage
from distill.build import TERMS

Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One method's student for one task, trained with one seed, after its evaluation.

    `terms` and `teacher_terms` are what each test item adds to the main metric, as `TrainingTask.terms` gives it, in
    two columns; `spent` are the tokens and seconds of each phase; `curves` its tokens and scores. `efficiency` is what
    `distill.efficiency.measure` found, for one cell of each method.
    """

    fingerprint: str
    target: str
    method: str
    task: str
    seed: int
    terms: tuple[list[float], list[float]]
    teacher_terms: tuple[list[float], list[float]]
    spent: dict[str, dict[str, float]]
    curves: dict[str, tuple[list[float], list[float]]]
    efficiency: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path, *, task: str, efficiency: dict[str, Any] | None = None, **known: Any) -> "Finding":
        """The finding of a build's folder whose stages are done. Raises ConfigError where one is not."""
        distilled, transferred = folder / "distill", folder / task / "transfer"
        reports = {
            "phase1": stage.report(distilled, command="distill"),
            "phase2": stage.report(transferred, command="transfer"),
        }
        curves = {
            "phase1": in_turn(distilled / "log.jsonl"),
            "phase2": in_turn(*(transferred / name / "log.jsonl" for name in ("intermediate", "full", "sparse"))),
        }
        return cls(
            task=task,
            terms=_columns(folder / task / "evaluate-student" / TERMS),
            teacher_terms=_columns(folder / task / "evaluate-teacher" / TERMS),
            spent={
                phase: {key: _sum(report, key) for key in ("tokens", "seconds")} for phase, report in reports.items()
            },
            curves={phase: (t.tolist(), s.tolist()) for phase, curve in curves.items() if curve for t, s in [curve]},
            efficiency=efficiency,
            **known,
        )

    @classmethod
    def load(cls, path: Path) -> "Finding":
        """A finding of `save`. Raises DataError that names the file."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is no finding of `compare`: {error}; remove it") from error

    def save(self, path: Path) -> None:
        """The file whole, or as it was."""
        path.parent.mkdir(parents=True, exist_ok=True)
        stage.write(path, json.dumps(asdict(self), separators=(",", ":")) + "\n")


def read_curve(log: Path) -> tuple[Curve, float]:
    """Tokens and scores of a training log, and all its tokens; of steps that a resumed run made twice the later counts.

    Shape: both (evaluations,). Raises DataError where the log holds no step.
    """
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    tokens = {entry["step"]: entry["tokens"] for entry in entries if "tokens" in entry}
    scores = {entry["step"]: entry["score"] for entry in entries if "score" in entry}
    if not tokens:
        raise DataError(f"{log} holds no training step")
    steps = sorted(scores)
    total = np.cumsum([tokens[step] for step in sorted(tokens)])
    curve = np.interp(steps, sorted(tokens), total), np.asarray([scores[step] for step in steps], dtype=np.float64)
    return curve, float(total[-1])


def in_turn(*logs: Path) -> Curve | None:
    """The curves of those logs that there are, one after the other; one without scores counts by its tokens alone."""
    parts = [read_curve(log) for log in logs if log.is_file()]
    if not parts:
        return None
    starts = np.cumsum([0.0, *(total for _, total in parts[:-1])])
    tokens = np.concatenate([start + tokens for start, ((tokens, _), _) in zip(starts, parts, strict=True)])
    return tokens, np.concatenate([scores for (_, scores), _ in parts])


def _columns(terms: Path) -> tuple[list[float], list[float]]:
    """The two columns; whole numbers as such, which are shorter to write."""
    first, second = (
        [int(value) if float(value).is_integer() else round(float(value), 6) for value in column]
        for column in np.load(terms).T
    )
    return first, second


def _sum(report: Any, key: str) -> float:
    """The sum of a figure over all runs of the training loop that a stage's report tells of."""
    if not isinstance(report, Mapping):
        return 0.0
    return float(report.get(key, 0.0)) + sum(_sum(value, key) for value in report.values())
