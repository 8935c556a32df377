"""Several processes, and corpora larger than memory."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.distill import corpora
from tests.distill.tiny import tiny_teacher

SETTINGS = (
    "student.layer_reduction_factor=2",
    *("phase1.schedule.steps=6", "phase1.schedule.log_every=1", "phase1.schedule.accumulate=2"),
    *("phase1.schedule.precision=fp32", "phase1.sequence_length=32", "phase1.batch_size=4", "phase1.heldout=0.2"),
    *("teach.ner.epochs=1", "teach.ner.accumulate=2", "teach.ner.batch_size=8", "teach.ner.precision=fp32"),
    *("transfer.ner.full_epochs=1", "transfer.ner.sparse_epochs=1", "transfer.ner.tuning.accumulate=2"),
    *("transfer.ner.tuning.batch_size=8", "transfer.ner.tuning.precision=fp32", "transfer.ner.tuning.dropout=0.1"),
)
UNEQUAL = """
import sys, torch
from distill import processes
one, other, idle = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
(one if processes.is_main() else other).grad = torch.tensor([1.0, 2.0])
processes.add_up_gradients([one, other, idle])
told = [None if value.grad is None else value.grad.tolist() for value in (one, other, idle)]
open(f"{sys.argv[1]}/{processes.index()}", "w").write(str(told))
"""
DRIVER = """
import sys
from distill.__main__ import main
for stage in ("trim", "student", "distill", "teach", "transfer"):
    assert main([stage, *sys.argv[1:]]) == 0
"""


LAUNCH = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port"),
)
ALONE = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.getcwd()}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def logs(runs: Path) -> dict[str, list[dict[str, float]]]:
    found = {}
    for stage in ("distill", "ner/teach", "ner/transfer/sparse"):
        entries = [json.loads(line) for line in (runs / "en-ha" / stage / "log.jsonl").read_text().splitlines()]
        found[stage] = [entry["terms"] for entry in entries if "terms" in entry]
    return found


@pytest.mark.slow
def test_two_processes_of_the_same_command_have_the_losses_of_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny_teacher("xlm-roberta", tmp_path / "teacher")
    corpora.write(tmp_path / "data")
    (tmp_path / "driver.py").write_text(DRIVER)
    launchers: dict[str, tuple[str, ...]] = {"one": (), "two": (*LAUNCH, str(free_port()))}
    for name, launcher in launchers.items():
        places = {"teacher": tmp_path / "teacher", "data": tmp_path / "data", "out": tmp_path / name}
        options = [part for key, value in places.items() for part in (f"--{key}", str(value))]
        command = [str(tmp_path / "driver.py"), "--tgt", "ha", "--tasks", "ner", *options, *SETTINGS]
        done = subprocess.run(
            [sys.executable, *launcher, *command],
            env={**os.environ, **ALONE},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = logs(tmp_path / "one"), logs(tmp_path / "two")
    assert {stage: len(entries) for stage, entries in one.items()} == {s: len(e) for s, e in two.items()}
    assert len(one["distill"]) == 6
    for stage, entries in one.items():
        for mine, theirs in zip(entries, two[stage], strict=True):
            assert theirs == pytest.approx(mine, rel=2e-3), stage


@pytest.mark.slow
def test_a_gradient_that_one_process_lacks_counts_as_zero_and_one_that_all_lack_stays_absent(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(UNEQUAL)
    command = [sys.executable, *LAUNCH, str(free_port()), str(tmp_path / "driver.py"), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, **ALONE}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for process in ("0", "1"):
        assert (tmp_path / process).read_text() == "[[1.0, 2.0], [1.0, 2.0], None]"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text() -> None:
    peaks = []
    for megabytes in (2, 12):
        command = [sys.executable, "-m", "tests.distill.corpus_memory", "--megabytes", str(megabytes)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"peak (\d+) MB", told)
        assert found is not None
        peaks.append(int(found[1]))
    assert peaks[1] - peaks[0] < 12  # the text alone would be 10 MB more, its ids as Python objects hundreds
