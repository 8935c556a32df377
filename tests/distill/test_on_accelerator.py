"""Training on an accelerator, by one that only pretends: what moves nothing to it, or mixes devices, fails there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distill.on_accelerator import BUILDS


@pytest.mark.slow
def test_students_learn_on_an_accelerator_what_they_learn_on_the_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.distill.on_accelerator", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    differences = json.loads((tmp_path / "differences.json").read_text())
    assert differences.pop("pretrain") < 4e-3, "more than half precision rounds"
    assert len(differences) == len(BUILDS) and max(differences.values()) < 1e-6, differences
