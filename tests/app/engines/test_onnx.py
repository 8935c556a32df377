import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from app.engines.onnx import Engine
from app.rows import Tensors
from tests.app import tiny

VALUES = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


class Session:
    """A session over the table above that remembers the shapes it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="input_ids", type="tensor(int64)", shape=["batch", "length"])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="logits", shape=["batch", "length", 3])]

    def run(self, names: list[str], feed: Tensors) -> list[np.ndarray]:
        self.shapes.append(feed["input_ids"].shape)
        return [VALUES[feed["input_ids"].astype(int)]]


@pytest.mark.parametrize(("rows", "longest", "shape"), [(1, 5, (1, 32)), (3, 33, (4, 64)), (64, 128, (64, 128))])
def test_a_micro_batch_in_a_bucket_runs_at_the_buckets_shape_and_is_cut_back(
    rows: int, longest: int, shape: tuple[int, int]
) -> None:
    anything, by_length = Session(), {length: Session() for length in (32, 64, 128, 256)}
    ids = np.random.default_rng(1).integers(0, 10, (rows, longest))
    answer = Engine(anything, by_length).run({"input_ids": ids})["logits"]
    np.testing.assert_array_equal(answer, VALUES[ids])
    assert not anything.shapes
    assert [session.shapes for session in by_length.values() if session.shapes] == [[shape]]


@pytest.mark.parametrize("shape", [(1, 257), (65, 8)])
def test_a_micro_batch_outside_every_bucket_goes_to_the_session_that_takes_any_shape(shape: tuple[int, int]) -> None:
    anything, by_length = Session(), {length: Session() for length in (32, 64, 128, 256)}
    Engine(anything, by_length).run({"input_ids": np.zeros(shape, np.int64)})
    assert anything.shapes == [shape]
    assert not any(session.shapes for session in by_length.values())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time is read per process")
def test_threads_do_not_spin_for_long_after_a_call(tmp_path: Path) -> None:
    onnx.save(tiny.token_model(VALUES), str(tmp_path / "model.onnx"))
    engine = Engine.open(tmp_path, file="model.onnx", threads=3)
    used = 0.0
    for _ in range(10):
        engine.run({"input_ids": np.zeros((64, 256), np.int64)})
        begun = time.process_time()
        time.sleep(0.02)
        used += time.process_time() - begun
    engine.close()
    assert used < 0.05  # two threads that spin through all of it would use 0.4 s where there are cores for them


def test_on_a_cpu_there_are_as_many_streams_as_are_wished_for(tmp_path: Path) -> None:
    onnx.save(tiny.token_model(np.zeros((4, 2), np.float32)), str(tmp_path / "model.onnx"))
    for streams in (1, 2):
        engine = Engine.open(tmp_path, file="model.onnx", threads=2, streams=streams)
        assert engine.streams == streams
        engine.close()
