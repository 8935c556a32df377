"""`compare`: methods under one budget and set of seeds. Each cell (method, task, seed) is done once.

A cell is a build of its own under `<out>/<method>/seed-<n>`; stages of equal inputs are shared through `<out>/stages`:
the trimmed teacher and the task teachers by all, phase 1 by the methods that differ in phase 2 alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from distill import build as building
from distill import efficiency, recipe
from distill.recipe import Build

STAGES = "stages"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method's student for one task, trained with one seed."""

    method: str
    task: str
    seed: int
    build: Build

    @property
    def name(self) -> str:
        return f"{self.method}, {self.task}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where the task's stages are."""
        return self.build.folder / self.task


def grid(
    preset: str, sources: Sequence[Mapping[str, Any]], *, methods: Sequence[str], seeds: Sequence[int], out: Path
) -> list[Cell]:
    """Every cell, seed by seed. The seed is that of phase 1 and phase 2; teachers keep the preset's.

    Raises UnknownChoice for a method there is none of, ConfigError for a repeated method or seed.
    """
    for name, values in (("method", methods), ("seed", seeds)):
        if not values or len(set(values)) != len(values):
            raise ConfigError(f"give each {name} once: {', '.join(map(str, values)) or 'none was given'}")
    cells = []
    for seed in seeds:
        for method in methods:
            places = {"method": method, "out": out / method / f"seed-{seed}", "pool": out / STAGES}
            seeded = {"phase1": {"schedule": {"seed": seed}}, "transfer": {"default": {"tuning": {"seed": seed}}}}
            build = recipe.read(preset, [*sources, places, seeded])
            cells += [Cell(method=method, task=task, seed=seed, build=build) for task in build.tasks]
    return cells


def run(cells: Sequence[Cell], *, tell: Callable[[str], None], after: Callable[[Sequence[Cell]], None]) -> None:
    """Bring every cell to its scores, and the first cell of each method to its speed.

    `after` is called after each with the cells that are finished.
    """
    timed: set[str] = set()
    for number, cell in enumerate(cells, start=1):
        tell(f"{number}/{len(cells)}  {cell.name}")
        building.trim(cell.build)
        if cell.build.adapted:
            building.adapt(cell.build)
        for stage in (building.student, building.phase1):
            stage(cell.build)
        for task_stage in (building.task_teacher, building.task_student, building.evaluation):
            task_stage(cell.build, cell.task)
        if cell.method not in timed:
            efficiency.measure(cell.build, cell.task)
            timed.add(cell.method)
        after(cells[:number])
