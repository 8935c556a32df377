"""The live proof on tiny models: what is counted, what is dropped, and that nobody waits for it."""

import asyncio
import dataclasses
import json
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import pytest
from starlette.testclient import TestClient

from app import shadow as shadows
from app.bench.live import SPEEDUP
from app.bundle import Bundle, Variant, write
from app.errors import ConfigError
from app.main import create_app
from app.metrics import Metrics
from app.rows import Tensors
from app.settings import Settings
from app.shadow import Shadow
from app.store import Served
from tests.app import tiny
from tests.app.conftest import open_all
from tests.app.gate import Gate, entered
from tests.app.test_metrics import samples, value
from tests.app.test_service import connect
from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
PATH = "/v1/ha/ner"
MODEL = {"lang": "ha", "task": "ner"}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teachers for all tasks but DP; the NER one takes Kano for an organisation and knows no Tinubu."""
    root = tmp_path_factory.mktemp("teachers")
    for task in ("ner", "pos", "nli", "qa"):
        tiny.write_bundle(root / "store", task, staged=root / task)
    staged = root / "other"
    staged.mkdir()
    tokenizer = tiny.xlmr()
    rules = {"Bola": "B-PER", "Kano": "B-PER", "Abuja": "B-LOC"}
    onnx.save(tiny.token_model(tiny.table(tokenizer, tiny.NER_LABELS, rules)), str(staged / "model.onnx"))
    tokenizer.save(str(staged / "tokenizer.json"))
    shutil.rmtree(root / "store" / "ha" / "ner")
    write(staged, tiny.manifest("ner"), store=root / "store")
    return root / "store"


def settings(store: Path, teachers: Path | str, **values: Any) -> Settings:
    given = {"shadow_share": 1.0, "shadow_time_share": 1.0, **values}
    return Settings.read(store=str(store), threads=1, shadow_teacher=str(teachers), **given)


@pytest.fixture
def client(store: Path, teachers: Path) -> Iterator[TestClient]:
    chosen = settings(store, teachers)
    with TestClient(create_app(chosen, served=open_all(store, chosen))) as started:
        yield started


def settled(client: TestClient) -> None:
    """Wait until the shadow has nothing to do."""
    shadow = client.app.state.service.shadow  # type: ignore[attr-defined]
    client.portal.call(wait_for, shadow)  # type: ignore[union-attr]


async def wait_for(shadow: Shadow) -> None:
    if shadow._running is not None:
        await asyncio.wait([shadow._running])


def test_every_series_is_there_before_traffic_and_for_models_with_a_teacher_alone(client: TestClient) -> None:
    found = samples(client)
    for task in ("ner", "pos", "nli", "qa"):
        for mode in ("single", "batch"):
            assert found["bistil_shadow_pairs_total", (("lang", "ha"), ("mode", mode), ("task", task))] == 0
        for reason in ("busy", "backlog", "budget", "failed"):
            assert found["bistil_shadow_dropped_total", (("lang", "ha"), ("reason", reason), ("task", task))] == 0
    assert ("bistil_shadow_pairs_total", (("lang", "ha"), ("mode", "single"), ("task", "dp"))) not in found
    described = (dict(labels) for name, labels in found if name == "bistil_model_info")
    roles = [labels["role"] for labels in described if labels["task"] == "ner"]
    assert sorted(roles) == ["student", "student", "teacher"]
    assert value(client, "bistil_model_resident_bytes", role="teacher", **MODEL) >= 0


def test_pairs_and_agreement_are_counted_for_requests_of_every_task(client: TestClient) -> None:
    bodies: dict[str, Any] = {
        "ner": tiny.SENTENCE,
        "pos": tiny.SENTENCE,
        "nli": {"text": "isa", "text_pair": "gida"},
        "qa": {"question": "Ina?", "context": "Bola Tinubu ya isa"},
    }
    for task, inputs in bodies.items():
        assert client.post(f"/v1/ha/{task}", json={"inputs": inputs}).status_code == 200
        settled(client)
        for mode in ("single", "batch"):
            assert value(client, "bistil_shadow_pairs_total", lang="ha", task=task, mode=mode) == 1
            faster, slower = (
                value(client, f"bistil_shadow_log_{way}_sum", lang="ha", task=task, mode=mode)
                for way in ("speedup", "slowdown")
            )
            assert min(faster, slower) == 0
            square = value(client, "bistil_shadow_log_speedup_sumsq", lang="ha", task=task, mode=mode)
            assert square == pytest.approx((faster - slower) ** 2)
    outcomes = {
        task: {
            dict(labels)["outcome"]: number
            for (name, labels), number in samples(client).items()
            if name == "bistil_shadow_agreement_total" and dict(labels)["task"] == task and number
        }
        for task in bodies
    }
    # the teacher says PER for Bola, where the student says PER for Bola Tinubu, and PER for Kano, where it says LOC
    assert outcomes["ner"] == {"boundary": 1, "label": 1}
    assert outcomes["pos"] == {"match": 7}
    assert outcomes["nli"] == outcomes["qa"] == {"match": 1}


def test_one_input_of_a_list_makes_a_pair(client: TestClient) -> None:
    client.post(PATH, json={"inputs": ["Kano", "Kano", "Kano"]})
    settled(client)
    assert value(client, "bistil_shadow_pairs_total", mode="single", **MODEL) == 1
    assert value(client, "bistil_shadow_agreement_total", outcome="label", **MODEL) == 1


def test_a_failed_request_and_one_without_words_make_none(client: TestClient) -> None:
    client.post(PATH, json={"inputs": 3})
    client.post(PATH, json={"inputs": " "})
    settled(client)
    assert value(client, "bistil_shadow_pairs_total", mode="single", **MODEL) == 0


def test_the_share_is_drawn(store: Path, teachers: Path) -> None:
    chosen = settings(store, teachers, shadow_share=0.25)
    served = next(model for model in open_all(store, chosen) if (model.language, model.task) == ("ha", "ner"))
    shadow = Shadow(chosen, Metrics(), seed=0)
    shadow.open([served])

    class Request:
        def adjust(self, codec: Any) -> Any:
            return codec

    drawn = [shadow.sample(served, Request(), ["a"], ["b"], []) for _ in range(2000)]  # type: ignore[arg-type]
    assert 400 < sum(call is not None for call in drawn) < 600


def test_sums_are_those_of_the_logarithms_of_both_times(store: Path, teachers: Path) -> None:
    chosen = settings(store, teachers)
    served = [model for model in open_all(store, chosen) if (model.language, model.task) == ("ha", "ner")]
    app = create_app(chosen, served=served)
    shadow = app.state.service.shadow
    twins = shadow._twins["ha", "ner"]
    # time passes in the engines alone: 3 s a run of the teacher, 1 s one of the student
    elapsed = [0.0]

    def slowed(engine: Any, seconds: float) -> tiny.FakeEngine:
        def run(inputs: Tensors) -> Tensors:
            elapsed[0] += seconds
            return engine.run(inputs)  # type: ignore[no-any-return]

        return tiny.FakeEngine(run)

    shadow._twins["ha", "ner"] = dataclasses.replace(
        twins, teacher=slowed(twins.teacher, 3.0), student=slowed(twins.student, 1.0)
    )
    shadow._clock = lambda: elapsed[0]
    with TestClient(app) as client:
        for _ in range(4):
            client.post(PATH, json={"inputs": tiny.SENTENCE})
            settled(client)
        for mode in ("single", "batch"):
            assert value(client, "bistil_shadow_pairs_total", mode=mode, **MODEL) == 4
            assert value(client, "bistil_shadow_log_speedup_sum", mode=mode, **MODEL) == pytest.approx(4 * math.log(3))
            sumsq = value(client, "bistil_shadow_log_speedup_sumsq", mode=mode, **MODEL)
            assert sumsq == pytest.approx(4 * math.log(3) ** 2)
            assert value(client, "bistil_shadow_duration_seconds_sum", mode=mode, role="teacher", **MODEL) == 12


def test_the_reply_does_not_wait_and_what_comes_meanwhile_is_dropped_and_spoils_the_times(
    store: Path, teachers: Path
) -> None:
    chosen = settings(store, teachers)
    served = [model for model in open_all(store, chosen) if (model.language, model.task) == ("ha", "ner")]
    app = create_app(chosen, served=served)
    shadow = app.state.service.shadow
    twins = shadow._twins["ha", "ner"]
    gate = Gate(twins.teacher.run)
    shadow._twins["ha", "ner"] = dataclasses.replace(twins, teacher=tiny.FakeEngine(gate))

    async def scenario() -> list[dict[str, float]]:
        counted = []
        async with connect(app) as client:
            assert (await client.post(PATH, json={"inputs": "Kano"})).status_code == 200
            await entered(gate)
            for _ in range(3):
                assert (await client.post(PATH, json={"inputs": "Kano"})).status_code == 200
            gate.opened.set()
            await wait_for(shadow)
            counted.append(counts((await client.get("/metrics")).text))
            assert (await client.post(PATH, json={"inputs": "Kano"})).status_code == 200
            await wait_for(shadow)
            counted.append(counts((await client.get("/metrics")).text))
        await app.state.service.close()
        return counted

    def counts(text: str) -> dict[str, float]:
        wanted = r'^bistil_shadow_(?:pairs|dropped|agreement)_total\{.*"(single|batch|backlog|busy|label)".*\} (.*)$'
        return {name: float(number) for name, number in re.findall(wanted, text, re.MULTILINE)}

    meanwhile = {"single": 0, "batch": 1, "backlog": 3, "busy": 1, "label": 1}
    assert asyncio.run(scenario()) == [meanwhile, meanwhile | {"single": 1, "batch": 2, "label": 2}]


@pytest.mark.parametrize(("reason", "values"), [("budget", {"shadow_time_share": 1e-9}), ("failed", {})])
def test_what_is_not_run_has_its_reason(store: Path, teachers: Path, reason: str, values: dict[str, Any]) -> None:
    chosen = settings(store, teachers, **values)
    served = [model for model in open_all(store, chosen) if (model.language, model.task) == ("ha", "ner")]
    app = create_app(chosen, served=served)
    shadow = app.state.service.shadow
    if reason == "failed":

        def fail(inputs: Tensors) -> Tensors:
            raise RuntimeError

        twins = shadow._twins["ha", "ner"]
        shadow._twins["ha", "ner"] = dataclasses.replace(twins, teacher=tiny.FakeEngine(fail))
    with TestClient(app) as client:
        for _ in range(3):
            assert client.post(PATH, json={"inputs": "Kano"}).status_code == 200
            settled(client)
        dropped = 3 if reason == "failed" else 2
        assert value(client, "bistil_shadow_dropped_total", reason=reason, **MODEL) == dropped
        assert value(client, "bistil_shadow_pairs_total", mode="single", **MODEL) == 3 - dropped


def test_nothing_is_run_while_requests_wait(store: Path, teachers: Path) -> None:
    chosen = settings(store, teachers)
    served = [model for model in open_all(store, chosen) if (model.language, model.task) == ("ha", "ner")]
    gate = Gate(served[0].engine.run)
    gate.opened.set()
    served[0].batcher.engine = tiny.FakeEngine(gate)
    app = create_app(chosen, served=served)

    async def scenario() -> str:
        async with connect(app) as client:
            service = app.state.service
            (request,) = [served[0].codec.probe]
            offer = service.shadow.sample(served[0], Request(), [request], [None], [])
            gate.opened.clear()
            waiting = []
            while not served[0].batcher.n_waiting:  # one batch is in the engine, the next is made, and more come
                waiting.append(asyncio.create_task(client.post(PATH, json={"inputs": "Kano"})))
                await asyncio.sleep(0.01)
            offer()
            gate.opened.set()
            await asyncio.gather(*waiting)
            await wait_for(service.shadow)
            text = (await client.get("/metrics")).text
        await app.state.service.close()
        return text

    class Request:
        def adjust(self, codec: Any) -> Any:
            return codec

    text = asyncio.run(scenario())
    assert int(float(re.findall(r'shadow_dropped_total\{.*reason="busy".*\} (.*)', text)[0])) >= 1


def test_a_teacher_that_cannot_be_compared_leaves_the_model_served(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    staged = tmp_path / "staged"
    variants = (Variant(name="int8", file="model.onnx", precision="int8"),)
    other: Bundle = tiny.write_bundle(tmp_path / "store", "ner", staged=staged, variants=variants)
    chosen = settings(store, other.folder)
    served = [model for model in open_all(store, chosen) if (model.language, model.task) == ("ha", "ner")]
    with TestClient(create_app(chosen, served=served)) as client:
        assert client.post(PATH, json={"inputs": "Kano"}).status_code == 200
        assert not [name for name, _ in samples(client) if name.startswith("bistil_shadow")]
    assert "served in fp32 on onnx, and the teacher has int8 on onnx" in caplog.text


def test_a_teacher_with_its_own_tokenizer_is_timed_on_its_own_rows_and_on_no_batch(store: Path, tmp_path: Path) -> None:
    tiny.write_bundle(tmp_path / "store", "ner", staged=tmp_path / "staged", family="bert")
    chosen = settings(store, tmp_path / "store")
    served = [model for model in open_all(store, chosen) if (model.language, model.task) == ("ha", "ner")]
    with TestClient(create_app(chosen, served=served)) as client:
        client.post(PATH, json={"inputs": tiny.SENTENCE})
        settled(client)
        assert value(client, "bistil_shadow_pairs_total", mode="single", **MODEL) == 1
        assert value(client, "bistil_shadow_pairs_total", mode="batch", **MODEL) == 0
        assert value(client, "bistil_shadow_agreement_total", outcome="match", **MODEL) == 2


def test_a_folder_that_is_not_there_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"--shadow-teacher: .*/nowhere is not a folder"):
        Settings.read(shadow_teacher="/nowhere")


def test_the_documented_expression_is_the_one_that_is_tested() -> None:
    assert f"```promql\n{SPEEDUP}\n```" in (ROOT / "docs" / "proof.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_the_expression_gives_the_mean_and_its_interval(tmp_path: Path) -> None:
    metrics = Metrics()
    for teacher_s in (2.0, 2.0, 4.0, 0.5):
        metrics.shadow("ha", "ner", seconds={"single": (teacher_s, 1.0)}, agreement={})
    rendered = metrics.render([], ready=True).decode()
    names = "pairs_total|log_speedup_sum|log_slowdown_sum|log_speedup_sumsq"
    series = re.findall(rf"^(bistil_shadow_(?:{names})\{{.*\}}) (.*)$", rendered, re.MULTILINE)
    assert len(series) == 4
    # logarithms of base 2 are 1, 1, 2, -1: mean 0.75, mean of the squares 1.75
    half = 1.96 * math.sqrt((1.75 - 0.75**2) / 3)
    expected = {"mean": 2**0.75, "low": 2 ** (0.75 - half), "high": 2 ** (0.75 + half)}
    test = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": number} for name, number in series],
                "promql_expr_test": [
                    {
                        "expr": f"round(1e6 * ({SPEEDUP}))",
                        "eval_time": "0m",
                        "exp_samples": [
                            {
                                "labels": f'{{lang="ha", task="ner", mode="single", speedup="{name}"}}',
                                "value": round(1e6 * number),
                            }
                            for name, number in expected.items()
                        ],
                    }
                ],
            }
        ],
    }

    (tmp_path / "test.yml").write_text(json.dumps(test))
    ran = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_nothing_is_timed_while_a_teacher_loads(store: Path, teachers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(store, teachers)
    app = create_app(Settings.read(store=str(store), threads=1), served=open_all(store, chosen))
    served, loading, opened = app.state.service.served, threading.Event(), threading.Event()
    real = shadows._open

    def slow(folder: Path, model: Served, given: Settings) -> Any:
        if model.task == "qa":
            loading.set()
            assert opened.wait(PATIENCE_S)
        return real(folder, model, given)

    monkeypatch.setattr(shadows, "_open", slow)
    shadow = app.state.service.shadow = Shadow(chosen, app.state.service.metrics)
    with TestClient(app) as client, ThreadPoolExecutor() as pool:
        done = pool.submit(shadow.open, served)
        assert loading.wait(PATIENCE_S)
        client.post(PATH, json={"inputs": "Kano"})
        assert "bistil_shadow_pairs_total{" not in client.get("/metrics").text
        opened.set()
        done.result(PATIENCE_S)
        client.post(PATH, json={"inputs": "Kano"})
        settled(client)
        assert value(client, "bistil_shadow_pairs_total", mode="single", **MODEL) == 1
