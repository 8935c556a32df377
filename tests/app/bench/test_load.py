import asyncio
import json
import math
import re
import statistics
import time
from pathlib import Path

import pytest

from app.bench.contenders import lists, single
from app.bench.engine import BareEngine, log_ratios
from app.bench.load import closed_loop
from app.errors import EngineError
from app.rows import Tensors
from tests.app import tiny
from tests.app.live import running, wait_until_ready
from tests.patience import get


def test_every_request_sent_is_an_answer_and_says_what_the_engine_took(store: Path) -> None:
    with running(store, "--lang", "ha", "--tasks", "ner") as server:
        wait_until_ready(server.url)
        url = f"{server.url}/v1/ha/ner"
        answers = closed_loop(url, single(["Bola", "Kano"]), n_clients=3, seconds=0.4)
        more = closed_loop(url, lists(["Bola", "Kano", "gida"], size=2), n_clients=1, seconds=0.2)
        with pytest.raises(EngineError, match=r"answered HTTP/1\.1 404"):
            closed_loop(f"{server.url}/v1/xx/ner", single(["Bola"]), n_clients=1, seconds=0.1)
        counted = re.findall(
            r'bistil_requests_total\{code="200",lang="ha",task="ner"\} (.*)', get(f"{server.url}/metrics").text
        )
    assert len(answers) >= 3 and [float(number) for number in counted] == [len(answers) + len(more)]
    assert all(0 < (answer.forward_s or 0) < answer.seconds for answer in answers)
    assert {answer.n_texts for answer in more} == {2}


def test_clients_that_pause_wait_as_long_in_the_mean(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    with running(store, "--lang", "ha", "--tasks", "ner") as server:
        wait_until_ready(server.url)
        url = f"{server.url}/v1/ha/ner"
        answers = closed_loop(url, single(["Bola"]), n_clients=2, seconds=0.5, pause_s=30.0)
        assert len(waited) == len(answers) - 2  # nobody waits after the last
        assert len(set(waited)) == len(waited) and statistics.mean(waited) == pytest.approx(30, rel=0.5)
        waited.clear()
        closed_loop(url, single(["Bola"]), n_clients=2, seconds=0.1)
        assert not any(waited)


def test_bodies_are_what_the_servers_take() -> None:
    assert [json.loads(body.content) for body in single(["a", "b"])] == [{"inputs": "a"}, {"inputs": "b"}]
    assert [json.loads(body.content) for body in lists(["a", "b", "c"], size=2)] == [{"inputs": ["a", "b"]}]


def test_the_bare_engine_runs_every_row_once_however_they_are_cut(tmp_path: Path) -> None:
    bundle = tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged")
    texts = ["Bola", "Bola Tinubu ya isa", "Kano da Abuja"] * 3
    bare = BareEngine(bundle.folder, texts, variant="", threads=1)
    for waiting in (1, 4, 64):
        batches = bare.batches(waiting=waiting)
        assert sum(tensors["attention_mask"].sum() for tensors in batches) == sum(len(row) for row in bare.rows)
        assert all(len(tensors["input_ids"]) <= waiting for tensors in batches)
    assert bare.texts_per_s(waiting=4, seconds=0.0) > 0


def test_ratios_are_teacher_seconds_over_student_seconds_a_text_until_the_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged")
    teacher, student = (BareEngine(bundle.folder, ["Bola Kano"] * 20, variant="", threads=1) for _ in range(2))
    now = 0.0

    def taking(seconds: float) -> tiny.FakeEngine:
        def run(inputs: Tensors) -> Tensors:
            nonlocal now
            now += seconds
            return {}

        return tiny.FakeEngine(run)

    teacher.engine, student.engine = taking(8.0), taking(1.0)
    assert log_ratios(teacher, student, seconds=0.0, clock=lambda: now) == pytest.approx([math.log(8)] * 20)
    # a text takes both twice, 18 s
    assert len(log_ratios(teacher, student, seconds=25 * 18.0, clock=lambda: now)) == 25
    rested: list[float] = []
    monkeypatch.setattr(time, "sleep", rested.append)
    log_ratios(teacher, student, seconds=0.0, pause_s=0.1, clock=lambda: now)
    assert len(rested) == 20 and statistics.mean(rested) == pytest.approx(0.1, rel=0.5)
