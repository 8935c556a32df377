"""Faults against a real server: each has its status, its metric, and what the probes say meanwhile."""

import dataclasses
import json
import re
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnx

from app.batching import Batcher
from app.engines.onnx import Engine
from app.microbatches import Cost
from app.rows import Tensors
from app.settings import Settings
from app.store import Location, ModelStore, Served
from tests.app import tiny
from tests.app.gate import Gate
from tests.app.live import Listening, listening
from tests.app.test_routes import SECRET, problem
from tests.patience import PATIENCE_S, get, post, until

PATH = "/v1/ha/ner"


def zeros(inputs: Tensors) -> Tensors:
    return {"logits": np.zeros((*inputs["input_ids"].shape, len(tiny.NER_LABELS)))}


def served_by(store: Path, engine: Any, **options: Any) -> Served:
    """The tiny Hausa NER bundle with another engine in it."""
    model = ModelStore(str(store), cache=store).open(Location("ha", "ner", 1), Settings.read(threads=1))
    model.engine.close()
    return dataclasses.replace(model, engine=engine, batcher=Batcher(engine, pad_id=1, per_token=True, **options))


def ask(server: Listening, text: str = "Kano", **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return post(f"{server.url}{PATH}", json={"inputs": text}, headers=named)


def metric(server: Listening, name: str, **labels: str) -> float:
    text = get(f"{server.url}/metrics").text
    inner = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    (value,) = re.findall(rf"^{re.escape(name + (f'{{{inner}}}' if inner else ''))} (\S+)$", text, re.M)
    return float(value)


def answered(server: Listening, code: int) -> float:
    return metric(server, "bistil_requests_total", lang="ha", task="ner", code=str(code))


def probes(server: Listening) -> tuple[int, int]:
    live, ready = (get(f"{server.url}{path}").status_code for path in ("/livez", "/readyz"))
    return live, ready


def test_a_forward_that_raises_is_a_500_and_the_next_is_answered(store: Path) -> None:
    def fail_once(inputs: Tensors, *, failed: list[bool] = []) -> Tensors:  # noqa: B006
        if not failed:
            failed.append(True)
            raise RuntimeError(SECRET)
        return zeros(inputs)

    with listening(Settings.read(), [served_by(store, tiny.FakeEngine(fail_once))]) as server:
        problem(ask(server, SECRET), 500, "engine-failure")
        assert ask(server).status_code == 200
        assert (answered(server, 500), answered(server, 200)) == (1, 1)
        assert probes(server) == (200, 200)


def test_a_forward_that_gives_nan_is_a_500(store: Path, tmp_path: Path) -> None:
    tokenizer = tiny.xlmr()
    values = tiny.table(tokenizer, tiny.NER_LABELS, tiny.NER_RULES)
    values[tokenizer.encode("Ina", add_special_tokens=False).ids[0]] = np.nan
    onnx.save(tiny.token_model(values), str(tmp_path / "model.onnx"))
    with listening(Settings.read(), [served_by(store, Engine.open(tmp_path, file="model.onnx"))]) as server:
        problem(ask(server, "Ina Kano"), 500, "engine-failure")
        assert [entity["word"] for entity in ask(server, "isa Kano").json()] == ["Kano"]
        assert (answered(server, 500), answered(server, 200)) == (1, 1)
        assert probes(server) == (200, 200)


def test_a_forward_that_hangs_is_a_504_fails_both_probes_and_recovers(store: Path) -> None:
    gate = Gate(zeros)
    served = served_by(store, tiny.FakeEngine(gate), stuck_after_s=0.05)
    with listening(Settings.read(), [served]) as server:
        problem(ask(server, x_request_timeout_ms="1000"), 504, "deadline-exceeded")
        assert probes(server) == (200, 200)
        problem(ask(server, x_request_timeout_ms="1000"), 504, "deadline-exceeded")
        assert probes(server) == (503, 503)
        assert answered(server, 504) == metric(server, "bistil_rejected_total", reason="deadline-exceeded") == 2
        gate.opened.set()
        until(lambda: probes(server) == (200, 200))
        assert ask(server).status_code == 200
    assert served.engine.batches == [(1, 3), (1, 3)]  # type: ignore[attr-defined]


def test_a_client_that_hangs_up_is_counted_and_its_rows_are_not_run(store: Path) -> None:
    gate = Gate(zeros)
    served = served_by(store, tiny.FakeEngine(gate))
    with listening(Settings.read(), [served]) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(ask, server)
        assert gate.entered.wait(PATIENCE_S)
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(request_bytes("Bola ya isa"))
            until(lambda: served.batcher.n_waiting == 1)
        until(lambda: served.batcher.n_waiting == 0)
        gate.opened.set()
        assert first.result().status_code == 200
        assert answered(server, 499) == metric(server, "bistil_client_gone_total") == 1
        assert probes(server) == (200, 200)
    assert served.engine.batches == [(1, 3)]  # type: ignore[attr-defined]


def request_bytes(text: str, **headers: str) -> bytes:
    body = json.dumps({"inputs": text}).encode()
    headers |= {"host": "x", "content-type": "application/json", "content-length": str(len(body))}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_head_that_never_ends_loses_its_connection(store: Path) -> None:
    settings = Settings.read(receive_timeout_s=1)
    with listening(settings, [served_by(store, tiny.FakeEngine(zeros))]) as server:
        for head in (b"", b"POST /v1/ha/ner HTTP/1.1\r\nhost: x\r\nx-a: "):
            with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as connection:
                connection.sendall(head)
                assert received(connection) == b""
        with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(request_bytes("Kano"))
            answer = b""
            while not answer.endswith(b"\r\n\r\n[]"):
                part = connection.recv(65536)
                assert part, f"closed after {answer!r}"
                answer += part
            assert answer.startswith(b"HTTP/1.1 200 OK")
            connection.sendall(b"POST /v1/ha/ner HTTP/1.1\r\n")
            assert received(connection) == b""
        assert probes(server) == (200, 200)


def test_a_body_that_trickles_is_a_408_however_often_a_byte_comes(store: Path) -> None:
    with listening(Settings.read(receive_timeout_s=1), [served_by(store, tiny.FakeEngine(zeros))]) as server:
        with socket.create_connection((server.host, server.port), timeout=0.1) as connection:
            whole = request_bytes("Kano", connection="close")
            head, _, body = whole.partition(b"\r\n\r\n")
            head = re.sub(rb"content-length: \d+", b"content-length: 100000", head)
            connection.sendall(head + b"\r\n\r\n" + body)
            answer = b""
            while not answer:
                with suppress(ConnectionError):  # the answer has come, and the end of the connection
                    connection.sendall(b" ")
                with suppress(TimeoutError):
                    answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408")
        assert metric(server, "bistil_requests_total", lang="none", task="none", code="408") == 1
        assert probes(server) == (200, 200)


def test_thrice_the_load_it_can_bear_is_answered_in_time_or_told_when_to_come_back(store: Path) -> None:
    """A burst while the engine is held: what fits into the time is answered, the rest when it comes back."""
    cost = Cost(per_batch=0.0, per_token=0.5)
    text = "Bola ya isa Kano"  # 6 pieces, 3 s; of 64 s, 70 % may be spoken for, so that 14 fit, and of 60 s too
    n_sent, n_fit = 42, 14
    gate = Gate(zeros)
    served = served_by(store, tiny.FakeEngine(gate), cost=cost)
    with listening(Settings.read(timeout_s=64), [served]) as server, ThreadPoolExecutor(n_sent) as pool:
        first = pool.submit(ask, server, text)
        assert gate.entered.wait(PATIENCE_S)
        others = [pool.submit(ask, server, text) for _ in range(n_sent - 1)]
        until(lambda: sum(each.done() for each in others) == n_sent - n_fit)
        refused = [each.result() for each in others if each.done()]
        assert served.batcher.n_waiting == n_fit - 1
        for answer in refused:
            assert problem(answer, 503, "overloaded")["retry_after_seconds"] == 42
            assert answer.headers["retry-after"] == "42"
        assert probes(server) == (200, 200)
        gate.opened.set()
        accepted = [each for each in (first, *others) if each.result() not in refused]
        assert [each.result().status_code for each in accepted] == [200] * n_fit
        assert [ask(server, text).status_code for _ in refused] == [200] * (n_sent - n_fit)
        assert (answered(server, 200), answered(server, 503)) == (n_sent, n_sent - n_fit)
        assert metric(server, "bistil_rejected_total", reason="overloaded") == n_sent - n_fit
        assert probes(server) == (200, 200)


def test_requests_counted_are_requests_sent_whatever_became_of_them(store: Path) -> None:
    def fail_on_long(inputs: Tensors) -> Tensors:
        if inputs["input_ids"].shape[1] > 5:
            raise RuntimeError
        return zeros(inputs)

    with listening(Settings.read(max_characters=60), [served_by(store, tiny.FakeEngine(fail_on_long))]) as server:
        with ThreadPoolExecutor(16) as pool:
            texts = ["Kano", "isa isa isa isa isa", "x" * 61] * 30
            statuses = Counter(response.status_code for response in pool.map(lambda text: ask(server, text), texts))
        assert sum(statuses.values()) == 90
        assert statuses[422] == 30
        assert set(statuses) <= {200, 422, 500}
        assert {code: answered(server, code) for code in statuses} == statuses


def test_the_threads_of_a_server_end_with_it(store: Path) -> None:
    before = set(threading.enumerate())
    with listening(Settings.read(), [served_by(store, tiny.FakeEngine(zeros))]) as server:
        assert ask(server).status_code == 200
        assert set(threading.enumerate()) - before
    until(lambda: set(threading.enumerate()) <= before)
