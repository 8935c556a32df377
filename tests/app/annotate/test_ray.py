"""The same job on a Ray cluster of its own, with two workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.annotate.__main__ import main
from app.annotate.formats import base
from tests.app import tiny

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


def test_two_ray_workers_give_the_output_of_one_process(tmp_path: Path, store: Path) -> None:
    pytest.importorskip("ray", reason="pip install '.[ray]'")
    source = tmp_path / "in.jsonl"
    texts = (f"{'yara ' * (index % 7)}{tiny.SENTENCE}" for index in range(6 * base.CHUNK_RECORDS))
    source.write_text("".join(json.dumps({"id": index, "text": text}) + "\n" for index, text in enumerate(texts)))
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    flags = ["--lang", "ha", "--task", "ner", "--store", str(store)]
    assert main([str(source), str(one), *flags, "--workers", "1"]) == 0
    command = [sys.executable, "-m", "app.annotate", str(source), str(two), *flags, "--workers", "2", "--ray", "local"]
    environment = os.environ | {"RAY_worker_niceness": "0"}  # or a busy machine starves Ray's workers
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert two.read_bytes() == one.read_bytes()


def test_what_is_wrong_in_a_ray_worker_is_said_as_on_this_machine(tmp_path: Path, store: Path) -> None:
    for package in ("ray", "pyarrow"):
        pytest.importorskip(package)
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Kano", "id": 1}\n{"text": "Kano", "id": "b"}\n')
    flags = ["--lang", "ha", "--task", "ner", "--store", str(store), "--workers", "1", "--ray", "local"]
    command = [sys.executable, "-m", "app.annotate", str(source), str(tmp_path / "out.parquet"), *flags]
    environment = os.environ | {"RAY_worker_niceness": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "\nannotate: the field 'id' does not fit into a column of Parquet" in f"\n{done.stderr}"
