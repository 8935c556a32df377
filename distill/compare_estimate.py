"""`compare --dry-run`: which cells are found already, and what the others will take."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from distill import estimate
from distill.compare import Cell
from distill.estimate import Cost
from distill.measurements import Measurements

NOTE = f"""A stage that cells share is counted at the first of them, and one that has ended at none. The timing of the
students, one for each method, is not in it.
{estimate.NOTE}"""
_STAGES = ("trim", "adapt", "student", "distill", "teach", "transfer", "evaluate")


def remaining(cells: Sequence[Cell], *, findings: Path, measured: Measurements) -> list[Cost]:
    """What is left to do for each cell, in their order; one in the folder of findings is done. Nothing is written."""
    counted: set[str] = set()
    rows = []
    for cell in cells:
        if cell.known(findings) is not None:
            rows.append(Cost(name=cell.name, seconds=0, memory=0, disk=0, is_done=True))
            continue
        stages = [name for name in _STAGES if name != "adapt" or cell.build.adapted]
        costs = estimate.estimate(replace(cell.build, tasks=(cell.task,)), stages, measured=measured)
        left = [cost for cost in costs if not cost.is_done and cost.mark not in counted]
        counted |= {cost.mark for cost in left}
        rows.append(estimate.together(cell.name, left))
    return rows
