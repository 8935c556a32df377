import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from app.bench.contenders import lists, single
from app.bench.engine import BareEngine, log_ratios
from app.bench.load import closed_loop
from app.errors import EngineError
from tests.app import tiny
from tests.app.live import running, wait_until_ready


def test_every_request_sent_is_an_answer_and_says_what_the_engine_took(store: Path) -> None:
    with running(store, "--lang", "ha", "--tasks", "ner") as server:
        wait_until_ready(server.url)
        url = f"{server.url}/v1/ha/ner"
        answers = asyncio.run(closed_loop(url, single(["Bola", "Kano"]), n_clients=3, seconds=0.4))
        more = asyncio.run(closed_loop(url, lists(["Bola", "Kano", "gida"], size=2), n_clients=1, seconds=0.2))
        with pytest.raises(ExceptionGroup) as failed:
            asyncio.run(closed_loop(f"{server.url}/v1/xx/ner", single(["Bola"]), n_clients=1, seconds=0.1))
    assert isinstance(failed.value.exceptions[0], EngineError)
    assert "answered HTTP/1.1 404" in str(failed.value.exceptions[0])
    assert len(answers) >= 3
    assert all(0 < (answer.forward_s or 0) < answer.seconds for answer in answers)
    assert {answer.n_texts for answer in more} == {2}


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


def test_the_ratio_of_equal_engines_is_one_and_that_of_a_slowed_one_is_not(tmp_path: Path) -> None:
    bundle = tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged")
    teacher, student = (BareEngine(bundle.folder, ["Bola Kano"] * 20, variant="", threads=1) for _ in range(2))
    run = teacher.engine.run

    def eight_times(inputs: Any) -> Any:
        for _ in range(7):
            run(inputs)
        return run(inputs)

    teacher.engine = tiny.FakeEngine(eight_times)
    found = log_ratios(teacher, student, seconds=0.0)
    assert len(found) == 20
    assert sum(value > 0 for value in found) > 10
