"""The two plots of a comparison: quality against latency, and learning curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.errors import DataError
from distill.compare import Cell

_INCHES = 4.2

Curve = tuple[np.ndarray, np.ndarray]


def quality_against_latency(found: Mapping[str, Any], path: Path) -> None:
    """A panel a task: each method's score, with its interval, over its time a text as a share of the teacher's."""
    tasks = found["metrics"]
    figure, panels = _panels(len(tasks))
    for panel, (task, metric) in zip(panels, tasks.items(), strict=True):
        timed = {name: told for name, told in found["methods"].items() if task in told["tasks"] and "speed" in told}
        for number, (name, told) in enumerate(timed.items()):
            score = told["tasks"][task]
            if number == 0:
                _point(panel, 1.0, score["teacher"], label="teacher", color="black", marker="*")
            _point(panel, 1 / told["speed"]["speedup"], score, label=name, **_look(list(found["methods"]).index(name)))
        slowest = max((1 / told["speed"]["speedup"] for told in timed.values()), default=1.0)
        panel.set(title=task, xlabel="time a text, as a share of the teacher's", ylabel=metric)
        panel.set_xlim(0, 1.05 * max(1.0, slowest))
    _save(figure, panels, path)


def learning_curves(cells: Sequence[Cell], path: Path) -> None:
    """Phase 1's held-out loss as a share of its first value, then a panel a task: dev score in phase 2; over tokens.

    Curves are means over the seeds that have finished. Scores are on the source languages' dev data.
    """
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    figure, panels = _panels(1 + len(tasks))
    for number, method in enumerate(dict.fromkeys(cell.method for cell in cells)):
        mine = [cell for cell in cells if cell.method == method]
        style = {**_look(number), "markersize": 4, "label": method}
        _draw(panels[0], [_phase1(cell) for cell in mine if cell.task == mine[0].task], style)
        for panel, task in zip(panels[1:], tasks, strict=True):
            _draw(panel, [_phase2(cell) for cell in mine if cell.task == task], style)
    panels[0].set(title="phase 1", xlabel="tokens", ylabel="held-out loss / its first value")
    for panel, task in zip(panels[1:], tasks, strict=True):
        panel.set(title=f"phase 2, {task}", xlabel="tokens", ylabel="dev score, source language")
    _save(figure, panels, path)


def read_curve(log: Path) -> Curve:
    """Tokens and scores of a training log; of steps that a resumed run made twice the later counts.

    Shape: both (evaluations,). Raises DataError where the log holds no step.
    """
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    tokens = {entry["step"]: entry["tokens"] for entry in entries if "tokens" in entry}
    scores = {entry["step"]: entry["score"] for entry in entries if "score" in entry}
    if not tokens:
        raise DataError(f"{log} holds no training step")
    steps = sorted(scores)
    total = np.cumsum([tokens[step] for step in sorted(tokens)])
    return np.interp(steps, sorted(tokens), total), np.asarray([scores[step] for step in steps], dtype=np.float64)


def _phase1(cell: Cell) -> Curve | None:
    log = cell.build.folder / "distill" / "log.jsonl"
    if not log.is_file():
        return None
    tokens, scores = read_curve(log)
    return (tokens, scores / scores[0]) if len(scores) else None


def _phase2(cell: Cell) -> Curve | None:
    """The full and the sparse phase, one after the other."""
    parts = [
        read_curve(log)
        for name in ("full", "sparse")
        if (log := cell.folder / "transfer" / name / "log.jsonl").is_file()
    ]
    if not parts:
        return None
    starts = np.cumsum([0.0, *(tokens[-1] for tokens, _ in parts[:-1])])
    tokens = np.concatenate([start + tokens for start, (tokens, _) in zip(starts, parts, strict=True)])
    return tokens, np.concatenate([scores for _, scores in parts])


def _draw(panel: Axes, curves: Sequence[Curve | None], style: Mapping[str, Any]) -> None:
    whole = [curve for curve in curves if curve is not None]
    whole = [curve for curve in whole if len(curve[0]) == len(whole[0][0])]
    if whole:
        panel.plot(np.mean([t for t, _ in whole], axis=0), np.mean([s for _, s in whole], axis=0), **style)


def _point(panel: Axes, place: float, score: Mapping[str, float], *, label: str, color: str, marker: str) -> None:
    reach = [[max(0.0, score["score"] - score["low"])], [max(0.0, score["high"] - score["score"])]]
    panel.errorbar([place], [score["score"]], yerr=reach, fmt=marker, capsize=3, label=label, color=color)


def _look(number: int) -> dict[str, str]:
    """Forty methods that can be told apart."""
    return {"color": f"C{number % 10}", "marker": "osD^"[number // 10 % 4]}


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_INCHES * count, _INCHES), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _save(figure: Figure, panels: Sequence[Axes], path: Path) -> None:
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, max(1, len(handles))))
    fresh = path.with_suffix(".tmp")
    figure.savefig(fresh, format="png", dpi=120, metadata={"Software": None})
    fresh.replace(path)
