"""Training on an accelerator, by one that only pretends: what moves nothing to it, or mixes devices, fails there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distill.accelerator import BUILDS

MIXED = """
import torch
from tests.distill.accelerator import Accelerator, begin
begin()
with Accelerator():
    there = torch.arange(3.0).to("pretend")
    print((there * 2 + 1).cpu().tolist(), there[torch.tensor([2])].cpu().tolist())
    for operation in (lambda: there + torch.ones(3), lambda: torch.ones(3)[there.nonzero()], there.numpy):
        try:
            operation()
        except RuntimeError as error:
            print(type(error).__name__)
"""


def test_the_accelerator_computes_and_does_not_mix_with_the_cpu() -> None:
    done = subprocess.run([sys.executable, "-c", MIXED], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[1.0, 3.0, 5.0] [2.0]", *3 * ["RuntimeError"]], done.stderr


@pytest.mark.slow
def test_students_learn_on_an_accelerator_what_they_learn_on_the_cpu(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.distill.accelerator", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert differences.pop("pretrain") < 4e-3, "more than half precision rounds"
    assert len(differences) == len(BUILDS) and max(differences.values()) < 1e-6, differences
