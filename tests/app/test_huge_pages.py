"""Memory that was allocated moves to huge pages and keeps what is in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from app import huge_pages

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# in a process of its own, since all of a process' memory is moved
PROGRAM = """
import numpy as np
from pathlib import Path
from app import huge_pages

def told():
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("AnonHugePages"))

values = np.random.default_rng(0).bytes(2**25)
kept = np.frombuffer(values, np.uint8).copy()
before, address = told(), kept.ctypes.data
huge_pages.collapse()
assert kept.ctypes.data == address and kept.tobytes() == values
print(before, told())
"""


def release() -> tuple[int, int]:
    major, minor = re.findall(r"\d+", Path("/proc/sys/kernel/osrelease").read_text())[:2]
    return int(major), int(minor)


@pytest.mark.skipif(not THP.exists() or "[never]" in THP.read_text(), reason="needs transparent huge pages")
def test_large_arrays_move_to_huge_pages_and_stay_what_they_were() -> None:
    if release() < (6, 1):
        pytest.skip("needs Linux 6.1, older kernels move memory later")
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, after = map(int, told.split())
    assert after - before >= 30 * 1024  # kB: 32 MiB but for the ends


def test_where_the_system_does_not_tell_of_its_memory_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huge_pages, "_MAPS", tmp_path / "maps")
    huge_pages.collapse()
