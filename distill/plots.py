"""The two plots of a comparison: quality against latency, and learning curves."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill.finding import Finding

_INCHES = 4.2


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


def learning_curves(findings: Sequence[Finding], path: Path) -> None:
    """Phase 1's held-out loss as a share of its first value, then a panel a task: dev score in phase 2; over tokens.

    Curves are means over the seeds that have finished. Scores are on the source languages' dev data.
    """
    tasks = list(dict.fromkeys(finding.task for finding in findings))
    figure, panels = _panels(1 + len(tasks))
    for number, method in enumerate(dict.fromkeys(finding.method for finding in findings)):
        mine = [finding for finding in findings if finding.method == method]
        style = {**_look(number), "markersize": 4, "label": method}
        once = [finding.curves for finding in mine if finding.task == mine[0].task]
        _draw(panels[0], [(t, np.divide(s, s[0])) for told in once for t, s in _of(told, "phase1")], style)
        for panel, task in zip(panels[1:], tasks, strict=True):
            _draw(panel, [c for finding in mine if finding.task == task for c in _of(finding.curves, "phase2")], style)
    panels[0].set(title="phase 1", xlabel="tokens", ylabel="held-out loss / its first value")
    for panel, task in zip(panels[1:], tasks, strict=True):
        panel.set(title=f"phase 2, {task}", xlabel="tokens", ylabel="dev score, source language")
    _save(figure, panels, path)


def _of(curves: Mapping[str, tuple[list[float], list[float]]], phase: str) -> list[tuple[Any, Any]]:
    """The phase's curve, if it has one."""
    return [curves[phase]] if phase in curves and curves[phase][0] else []


def _draw(panel: Axes, curves: Sequence[tuple[Any, Any]], style: Mapping[str, Any]) -> None:
    whole = [curve for curve in curves if len(curve[0]) == len(curves[0][0])]
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
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2 * len(panels))
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    figure.savefig(fresh, format="png", dpi=120, metadata={"Software": None})
    fresh.replace(path)
