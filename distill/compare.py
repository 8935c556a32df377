"""`compare`: methods under one budget and set of seeds. Each cell (method, task, seed) is done once.

A cell is a build of its own under `<out>/<method>/seed-<n>`; stages of equal inputs are shared through `<out>/stages`:
the trimmed teacher and the task teachers by all, phase 1 by the methods that differ in phase 2 alone. What a finished
cell tells is a file in the folder of findings, with which any machine goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from distill import build as building
from distill import efficiency, inputs, recipe, stage
from distill.finding import Finding
from distill.recipe import Build
from distill.teacher import resolve

STAGES = "stages"

_DECISIVE = ("tgt", "src", "target_labels", "adapted", "adapt", "student", "phase1")
"""What of a build decides a cell's finding beside its task's part, its teacher and its data."""


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
    def file(self) -> str:
        """Its finding's name."""
        return f"{self.build.tgt}.{self.task}.{self.method}.seed-{self.seed}.json"

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides what the cell finds, wherever its files are."""
        build = self.build
        chosen = {name: value for name, value in asdict(build).items() if name in _DECISIVE}
        teach, transfer = asdict(build.tuning(self.task)), asdict(build.phase2(self.task))
        labels = [
            *inputs.training_files(build, self.task),
            inputs.label_files(build.data, self.task, build.tgt, "test"),
        ]
        data = [inputs.identity(resolve(build.teacher)), inputs.text_files(build), labels]
        return stage.fingerprint(self.task, chosen, teach, transfer, build.export.test_examples, data)

    def known(self, findings: Path) -> Finding | None:
        """What the folder has of this cell, unless something decisive has changed since."""
        path = findings / self.file
        found = Finding.load(path) if path.is_file() else None
        return found if found is not None and found.fingerprint == self.fingerprint else None


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


def run(
    cells: Sequence[Cell], *, findings: Path, tell: Callable[[str], None], after: Callable[[Sequence[Finding]], None]
) -> list[Finding]:
    """Every cell's finding: the one in the folder `findings`, or the work's, which is put there.

    The first cell of each method is timed too; where all are known and none was, the method's times are those of
    another of its cells in the folder. `after` is called after each with all findings so far.
    """
    found: list[Finding] = []
    timed: set[str] = set()
    untimed = _known_but_untimed(cells, findings)
    for number, cell in enumerate(cells, start=1):
        known = cell.known(findings)
        if known is None:
            tell(f"{number}/{len(cells)}  {cell.name}")
            known = _work(cell, timed=cell.method in timed)
            known.save(findings / cell.file)
        elif cell.method in untimed - timed:
            known = replace(known, efficiency=_efficiency(cell, findings))
        if known.efficiency:
            timed.add(cell.method)
        found.append(known)
        after(found)
    return found


def _known_but_untimed(cells: Sequence[Cell], findings: Path) -> set[str]:
    """The methods of which every cell is known and none was timed."""
    known = [(cell.method, cell.known(findings)) for cell in cells]
    return {method for method, _ in known} - {method for method, one in known if one is None or one.efficiency}


def _efficiency(cell: Cell, findings: Path) -> dict[str, Any] | None:
    """What another cell of the method and target was timed at, one of the same task first; measured if none was.

    None where the models to measure are not here.
    """
    paths = sorted(findings.glob("*.json"), key=lambda path: (f".{cell.task}." not in path.name, path.name))
    for other in map(Finding.load, paths):
        if other.efficiency and (other.method, other.target) == (cell.method, cell.build.tgt):
            return other.efficiency
    marks = inputs.fingerprints(cell.build)
    made = (f"{cell.task}/{where}" for where in inputs.EVALUATED.values())
    if all(stage.found(cell.build.folder / name, marks[name]) is not None for name in made):
        return efficiency.measure(cell.build, cell.task)
    return None


def _work(cell: Cell, *, timed: bool) -> Finding:
    building.trim(cell.build)
    if cell.build.adapted:
        building.adapt(cell.build)
    for shared in (building.student, building.phase1):
        shared(cell.build)
    for task_stage in (building.task_teacher, building.task_student, building.evaluation):
        task_stage(cell.build, cell.task)
    return Finding.read(
        cell.build.folder,
        fingerprint=cell.fingerprint,
        target=cell.build.tgt,
        method=cell.method,
        task=cell.task,
        seed=cell.seed,
        efficiency=None if timed else efficiency.measure(cell.build, cell.task),
    )
