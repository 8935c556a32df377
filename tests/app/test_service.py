import asyncio
import dataclasses
import math
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from app.batching import Batcher
from app.main import create_app
from app.rows import Tensors
from app.service import Service
from app.settings import Settings
from app.store import Location, ModelStore, Served
from tests.app.conftest import Serve
from tests.app.gate import Gate, entered
from tests.app.test_metrics import parsed, value
from tests.app.test_routes import SECRET, problem
from tests.app.tiny import NER_LABELS, FakeEngine
from tests.patience import PATIENCE_S

PATH = "/v1/ha/ner"


def zeros(inputs: Tensors) -> Tensors:
    return {"logits": np.zeros((*inputs["input_ids"].shape, len(NER_LABELS)))}


def served_by(store: Path, engine: FakeEngine, **options: Any) -> Served:
    """The tiny Hausa NER bundle with another engine in it."""
    model = ModelStore(str(store), cache=store).open(Location("ha", "ner", 1), Settings.read(threads=1))
    model.engine.close()
    return dataclasses.replace(model, engine=engine, batcher=Batcher(engine, pad_id=1, per_token=True, **options))


class Transport(httpx2.ASGITransport):
    """The loop has a turn before an answer is there, as it has over a socket."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        await asyncio.sleep(0)
        return response


def connect(app: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=Transport(app, raise_app_exceptions=False), base_url="http://tiny")


def test_an_engine_that_fails_is_a_500_for_everyone_in_the_batch(serve: Serve, store: Path) -> None:
    def fail(inputs: Tensors) -> Tensors:
        raise RuntimeError(SECRET)

    client = serve(served=[served_by(store, FakeEngine(fail))])
    problem(client.post(PATH, json={"inputs": SECRET}), 500, "engine-failure")
    assert value(client, "bistil_requests_total", lang="ha", task="ner", code="500") == 1
    assert client.get("/livez").status_code == 200


def test_an_error_nobody_foresaw_is_a_500_that_says_nothing(
    serve: Serve, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise KeyError(SECRET)

    client = serve(served=[served_by(store, FakeEngine(zeros))])
    monkeypatch.setattr("app.tasks.token_classification.TokenClassification.decode", fail)
    problem(client.post(PATH, json={"inputs": "Kano"}), 500, "internal-error")
    assert value(client, "bistil_requests_total", lang="ha", task="ner", code="500") == 1
    assert "KeyError" in caplog.text
    assert SECRET not in caplog.text


def test_a_full_queue_is_a_503_with_retry_after(store: Path) -> None:
    gate = Gate(zeros)
    app = create_app(Settings.read(), served=[served_by(store, FakeEngine(gate), max_queue_tokens=8)])

    async def scenario() -> None:
        async with connect(app) as client:
            first = asyncio.create_task(client.post(PATH, json={"inputs": "Kano"}))
            await entered(gate)
            second = asyncio.create_task(client.post(PATH, json={"inputs": "Bola ya isa Kano"}))
            while app.state.service.served[0].batcher.n_waiting == 0:
                await asyncio.sleep(0.001)
            refused = await client.post(PATH, json={"inputs": "Bola ya isa Kano"})
            body = problem(refused, 503, "overloaded")
            assert refused.headers["retry-after"] == str(body["retry_after_seconds"])
            queue = await client.get("/metrics")
            assert "bistil_queue_depth 1.0" in queue.text
            assert 'bistil_rejected_total{reason="overloaded"} 1.0' in queue.text
            gate.opened.set()
            assert [(await task).status_code for task in (first, second)] == [200, 200]
        await app.state.service.close()

    asyncio.run(scenario())


def test_a_deadline_takes_the_rows_out_of_the_queue(store: Path) -> None:
    gate = Gate(zeros)
    engine = FakeEngine(gate)
    app = create_app(Settings.read(), served=[served_by(store, engine)])

    async def scenario() -> None:
        async with connect(app) as client:
            first = asyncio.create_task(client.post(PATH, json={"inputs": "Kano"}))
            await entered(gate)
            late = await client.post(PATH, json={"inputs": "Kano"}, headers={"x-request-timeout-ms": "20"})
            problem(late, 504, "deadline-exceeded")
            gate.opened.set()
            assert (await first).status_code == 200
        await app.state.service.close()

    asyncio.run(scenario())
    assert len(engine.batches) == 1


def test_a_caller_that_left_costs_nothing_and_is_counted(store: Path) -> None:
    gate = Gate(zeros)
    engine = FakeEngine(gate)
    app = create_app(Settings.read(), served=[served_by(store, engine)])

    async def leave() -> None:
        body = b'{"inputs": "Kano"}'
        messages = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
        }
        scope |= {"headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "", "asgi": {}}

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 499

        await app(scope, receive, send)

    async def scenario() -> str:
        async with connect(app) as client:
            first = asyncio.create_task(client.post(PATH, json={"inputs": "Kano"}))
            await entered(gate)
            await leave()
            assert app.state.service.served[0].batcher.n_waiting == 0
            gate.opened.set()
            await first
            text = (await client.get("/metrics")).text
        await app.state.service.close()
        return text

    text = asyncio.run(scenario())
    assert len(engine.batches) == 1
    assert "bistil_client_gone_total 1.0" in text
    assert 'bistil_requests_total{code="499",lang="ha",task="ner"} 1.0' in text


@pytest.mark.parametrize(
    ("stuck_after_s", "n_waiting", "status"),
    [(0.001, 1, 503), (0.001, 0, 200), (60.0, 1, 200)],
    ids=["stuck", "stuck but unwanted", "busy"],
)
def test_a_stuck_engine_fails_both_probes_once_other_work_waits(
    stuck_after_s: float, n_waiting: int, status: int, store: Path
) -> None:
    gate = Gate(zeros)
    app = create_app(
        Settings.read(stuck_after_s=stuck_after_s),
        served=[served_by(store, FakeEngine(gate), stuck_after_s=stuck_after_s)],
    )

    async def scenario() -> list[int]:
        async with connect(app) as client:
            tasks = [asyncio.create_task(client.post(PATH, json={"inputs": "Kano"}))]
            await entered(gate)
            tasks += [asyncio.create_task(client.post(PATH, json={"inputs": "Kano"})) for _ in range(n_waiting)]
            while app.state.service.served[0].batcher.n_waiting < n_waiting:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            probes = [(await client.get(path)).status_code for path in ("/livez", "/readyz")]
            gate.opened.set()
            assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
            probes.append((await client.get("/livez")).status_code)
        await app.state.service.close()
        return probes

    assert asyncio.run(scenario()) == [status, status, 200]


def test_models_load_behind_live_probes(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = {"ha": threading.Event(), "sw": threading.Event()}
    real = ModelStore.open

    def slow(self: ModelStore, location: Location, settings: Settings) -> Served:
        assert opened[location.language].wait(PATIENCE_S)
        return real(self, location, settings)

    monkeypatch.setattr(ModelStore, "open", slow)
    app = create_app(Settings.read(store=str(store), threads=1, tasks="ner"))

    async def scenario() -> None:
        async with app.router.lifespan_context(app), connect(app) as client:
            problem(await client.post(PATH, json={"inputs": "Kano"}), 503, "not-ready")
            opened["ha"].set()
            while len(app.state.service.served) < 1:
                await asyncio.sleep(0.005)
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/readyz")).json()["loading"] == ["sw/ner"]
            assert (await client.get("/v1/ha/ready")).status_code == 200
            assert (await client.get("/v1/sw/ready")).status_code == 503
            assert (await client.post(PATH, json={"inputs": "Kano"})).status_code == 200
            refused = await client.post("/v1/sw/ner", json={"inputs": "Kano"})
            problem(refused, 503, "not-ready")
            assert refused.headers["retry-after"] == "1"
            opened["sw"].set()
            while not app.state.service.ready:
                await asyncio.sleep(0.005)
            assert (await client.get("/readyz")).status_code == 200
            app.state.service.draining = True
            assert (await client.get("/readyz")).json() == {"ready": False, "draining": True, "loading": []}
            last = await client.post(PATH, json={"inputs": "Kano"})
            assert (last.status_code, last.headers["connection"]) == (200, "close")

    asyncio.run(scenario())
    assert app.state.service.served[0].batcher.alive


def test_a_bundle_that_cannot_be_loaded_keeps_the_server_unready(store: Path) -> None:
    app = create_app(Settings.read(store=str(store), lang="xx"))

    async def scenario() -> None:
        async with app.router.lifespan_context(app), connect(app) as client:
            while app.state.service.failure is None:
                await asyncio.sleep(0.005)
            assert (await client.get("/readyz")).status_code == 503

    asyncio.run(scenario())
    assert "unknown language 'xx'" in str(app.state.service.failure)


def test_a_deadline_that_passes_while_text_is_read_is_a_504_at_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()
    app = create_app(Settings.read(), served=[served_by(store, FakeEngine(zeros))])
    monkeypatch.setattr("app.service._encode", lambda *_: opened.wait(PATIENCE_S))

    async def scenario() -> None:
        async with connect(app) as client:
            late = await client.post(PATH, json={"inputs": "a" * 5000}, headers={"x-request-timeout-ms": "50"})
            problem(late, 504, "deadline-exceeded")
            assert not opened.is_set()
            opened.set()
        await app.state.service.close()

    asyncio.run(scenario())


def test_a_long_answer_is_looked_for_beside_the_loop(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve()
    moved: list[int] = []
    real = asyncio.to_thread

    def to_thread(call: Any) -> Any:
        moved.append(1)
        return real(call)

    monkeypatch.setattr("app.service.asyncio.to_thread", to_thread)
    inputs = {"question": "Ina yara?", "context": "yara suna Kano " * 100}
    for longest in (30, 512):
        client.post("/v1/ha/qa", json={"inputs": inputs, "parameters": {"max_answer_len": longest}})
    assert len(moved) == 2  # to read and to decode it, of the second alone


def test_what_hung_is_given_up_when_the_drain_is_over(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    real = asyncio.wait

    async def wait(tasks: Any, *, timeout: float | None = None) -> Any:
        if timeout is not None:
            waited.append(timeout)
        return await real(tasks, timeout=0.01 if timeout else timeout)

    async def scenario(*, left_s: float) -> None:
        gate = Gate(zeros)
        app = create_app(Settings.read(drain_timeout_s=40), served=[served_by(store, FakeEngine(gate))])
        service: Service = app.state.service
        async with connect(app) as client:
            hung = asyncio.create_task(client.post(PATH, json={"inputs": "Kano"}))
            await entered(gate)
            service.drain_by = time.monotonic() + left_s
            monkeypatch.setattr("app.service.asyncio.wait", wait)
            await service.close()
            monkeypatch.undo()
            assert service.failure is not None
            gate.opened.set()
            await hung

    for left_s in (math.inf, 10.0, 0.0):
        asyncio.run(scenario(left_s=left_s))
    assert waited == [40, pytest.approx(10, abs=1), 1]


def test_a_stuck_model_and_a_draining_server_are_ready_nowhere(store: Path) -> None:
    gate = Gate(zeros)
    app = create_app(Settings.read(), served=[served_by(store, FakeEngine(gate), stuck_after_s=0.001)])
    paths = ("/readyz", "/v1/ha/ready", "/v2/health/ready", "/v2/models/ha-ner/ready")

    async def scenario() -> list[list[int]]:
        async with connect(app) as client:

            async def codes() -> list[int]:
                return [(await client.get(path)).status_code for path in paths]

            found = [await codes()]
            tasks = [asyncio.create_task(client.post(PATH, json={"inputs": "Kano"}))]
            await entered(gate)
            tasks.append(asyncio.create_task(client.post(PATH, json={"inputs": "Kano"})))
            while app.state.service.served[0].batcher.n_waiting == 0:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            found.append(await codes())
            gate.opened.set()
            await asyncio.gather(*tasks)
            found.append(await codes())
            app.state.service.draining = True
            found.append(await codes())
        await app.state.service.close()
        return found

    assert asyncio.run(scenario()) == [[200] * 4, [503] * 4, [200] * 4, [503] * 4]


def test_windows_count_where_they_ran_and_waits_also_where_they_were_in_vain(store: Path) -> None:
    gate = Gate(zeros)
    app = create_app(Settings.read(), served=[served_by(store, FakeEngine(gate), max_queue_tokens=8)])

    async def scenario() -> str:
        async with connect(app) as client:
            first = asyncio.create_task(client.post(PATH, json={"inputs": "Kano"}))
            await entered(gate)
            late = {"x-request-timeout-ms": "50"}
            assert (await client.post(PATH, json={"inputs": "Kano"}, headers=late)).status_code == 504
            second = asyncio.create_task(client.post(PATH, json={"inputs": "Bola ya isa Kano"}))
            while app.state.service.served[0].batcher.n_waiting == 0:
                await asyncio.sleep(0.001)
            assert (await client.post(PATH, json={"inputs": "Bola ya isa Kano"})).status_code == 503
            gate.opened.set()
            await asyncio.gather(first, second)
            text = (await client.get("/metrics")).text
        await app.state.service.close()
        return text

    found = parsed(asyncio.run(scenario()))
    model = (("lang", "ha"), ("task", "ner"))
    assert found["bistil_windows_total", model] == 2
    waited = (("lang", "ha"), ("stage", "queue"), ("task", "ner"))
    assert found["bistil_stage_duration_seconds_count", waited] == 3
