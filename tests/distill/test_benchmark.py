from pathlib import Path

import numpy as np
import pytest

from app.engines.base import Engine
from app.errors import DataError
from app.rows import Tensors
from app.tasks.sequence_classification import PairItem
from distill.benchmark import compare
from distill.efficiency import rows_alone
from distill.tasks.base import Example, training_task
from tests.distill.tiny import tiny_teacher


class Clock:
    """A clock that engines move; nothing here waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed:
    streams = 1

    def __init__(self, clock: Clock, seconds: float, calls: list[str], name: str, *, power: int = 1) -> None:
        self.clock, self.seconds, self.calls, self.name, self.power = clock, seconds, calls, name, power

    @classmethod
    def open(cls, *_: object, **__: object) -> "Timed":
        raise NotImplementedError

    def run(self, inputs: Tensors) -> Tensors:
        self.calls.append(self.name)
        self.clock.now += self.seconds * inputs["input_ids"].size ** self.power
        return {}

    def close(self) -> None:
        pass


def engines(clock: Clock, calls: list[str]) -> tuple[Engine, Engine]:
    return Timed(clock, 0.006, calls, "teacher"), Timed(clock, 0.002, calls, "student")


def test_the_ratio_and_the_medians_are_those_of_the_clock() -> None:
    clock, calls = Clock(), []  # type: ignore[var-annotated]
    batches: list[Tensors] = [{"input_ids": np.zeros((1, n), np.int64)} for n in (1, 2, 4)]
    found = compare(*engines(clock, calls), batches, rounds=4, clock=clock)
    assert found["speedup"] == pytest.approx(3) and found["low"] == pytest.approx(3) == pytest.approx(found["high"])
    assert found["teacher_ms"] == pytest.approx(12) and found["student_ms"] == pytest.approx(4)
    assert (found["rounds"], found["batches"]) == (4, 3)


def test_who_goes_first_alternates() -> None:
    clock, calls = Clock(), []  # type: ignore[var-annotated]
    compare(*engines(clock, calls), [{"input_ids": np.zeros((1, 1), np.int64)}], rounds=4, clock=clock)
    timed = calls[2:]
    assert timed[::2] == ["teacher", "student"] * 2 and timed[1::2] == ["student", "teacher"] * 2


def test_nothing_to_time_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one batch"):
        compare(*engines(Clock(), []), [], rounds=1)


def test_the_interval_is_that_of_other_texts_and_rounds_do_not_narrow_it() -> None:
    batches: list[Tensors] = [{"input_ids": np.zeros((1, n), np.int64)} for n in range(1, 21)]
    widths = []
    for rounds in (1, 20):
        clock = Clock()
        teacher, _ = engines(clock, [])
        found = compare(teacher, Timed(clock, 0.006, [], "student", power=0), batches, rounds=rounds, clock=clock)
        widths.append(np.log(found["high"] / found["low"]))
        assert found["speedup"] == pytest.approx(np.exp(np.log(np.arange(1, 21)).mean()))
    assert widths[0] == pytest.approx(widths[1])
    assert widths[0] == pytest.approx(2 * 1.96 * np.log(np.arange(1, 21)).std() / np.sqrt(20), rel=0.1)


def test_what_is_too_long_for_the_model_is_not_timed(tmp_path: Path) -> None:
    tiny_teacher("xlm-roberta", tmp_path)
    pairs = [PairItem("Bola ya isa Kano", "Bola " * n) for n in (1, 200, 2)]
    examples = [Example(item=pair, gold="neutral") for pair in pairs]
    batches = rows_alone(training_task("nli"), examples, tmp_path, max_length=32, stride=8, pad_id=1)
    assert len(batches) == 2
