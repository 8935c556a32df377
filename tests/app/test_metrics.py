import math
import re
import shutil
import subprocess
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.metrics import Metrics
from tests.app import tiny
from tests.app.conftest import Serve


def samples(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return parsed(client.get("/metrics").text)


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(client: TestClient, name: str, **labels: str) -> float:
    return samples(client)[name, tuple(sorted(labels.items()))]


def test_every_series_is_there_before_traffic(client: TestClient) -> None:
    found = samples(client)
    for task in tiny.TASKS:
        for code in ("200", "404", "405", "413", "422", "499", "500", "503", "504"):
            assert found["bistil_requests_total", (("code", code), ("lang", "ha"), ("task", task))] == 0
        for stage in ("parse", "tokenize", "queue", "forward", "decode", "serialize"):
            key = (("lang", "ha"), ("stage", stage), ("task", task))
            assert found["bistil_stage_duration_seconds_count", key] == 0
    for name in ("bistil_queue_depth", "bistil_queue_tokens", "bistil_client_gone_total"):
        assert found[name, ()] == 0
    assert found["bistil_ready", ()] == 1
    info = [dict(labels) for name, labels in found if name == "bistil_model_info"]
    assert {(labels["lang"], labels["task"]) for labels in info} >= {("ha", "ner"), ("sw", "ner")}
    assert info[0]["provider"] == "CPUExecutionProvider"
    assert found["bistil_rejected_total", (("reason", "overloaded"),)] == 0
    quality = (("lang", "ha"), ("metric", "f1"), ("model", "student"), ("task", "ner"))
    assert found["bistil_model_quality_ratio", quality] == 0.5
    assert all(
        found["bistil_model_resident_bytes", (("lang", "ha"), ("role", "student"), ("task", task))] >= 0
        for task in tiny.TASKS
    )
    assert not [name for name, _ in found if name.endswith("_created")]


def test_requests_counted_are_requests_sent(client: TestClient) -> None:
    sent: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/ha/ner", {"inputs": "Bola"}, 200),
        ("/v1/ha/ner", {"inputs": ["Bola", "Kano"]}, 200),
        ("/v1/ha/pos", {"inputs": "Bola"}, 200),
        ("/v1/ha/ner", {"inputs": 3}, 422),
        ("/v1/xx/ner", {"inputs": "Bola"}, 404),
        ("/v1/ha/none", {"inputs": "Bola"}, 404),
    ] * 5
    for path, body, code in sent:
        assert client.post(path, json=body).status_code == code
    client.get("/livez")
    client.get("/v1/models")
    assert value(client, "bistil_requests_total", lang="ha", task="ner", code="200") == 10
    assert value(client, "bistil_requests_total", lang="ha", task="pos", code="200") == 5
    totals = [number for (name, _), number in samples(client).items() if name == "bistil_requests_total"]
    assert sum(totals) == len(sent)
    assert value(client, "bistil_request_duration_seconds_count", lang="ha", task="ner") >= 10
    assert value(client, "bistil_stage_duration_seconds_count", lang="ha", task="ner", stage="forward") == 10
    assert value(client, "bistil_windows_total", lang="ha", task="ner") == 15
    assert value(client, "bistil_batch_sequences_sum") == 20


def test_labels_never_come_from_a_caller(client: TestClient) -> None:
    for index in range(20):
        client.post(f"/v1/made-up-{index}/ner", json={"inputs": "a"})
    text = client.get("/metrics").text
    assert "made-up" not in text
    assert value(client, "bistil_requests_total", lang="none", task="none", code="404") == 20


def test_every_request_without_an_answer_is_counted_under_its_reason(serve: Serve) -> None:
    client = serve(max_inputs=2, max_characters=50, max_body_bytes=200)
    sent = {
        "too-many-inputs": ("/v1/ha/ner", b'{"inputs": ["a", "b", "c"]}', 422),
        "input-too-long": ("/v1/ha/ner", b'{"inputs": "%s"}' % (b"a" * 60), 422),
        "body-too-large": ("/v1/ha/ner", b'{"inputs": "%s"}' % (b"a" * 300), 413),
        "not-served": ("/v1/xx/ner", b'{"inputs": "a"}', 404),
        "not-found": ("/v1/ha/ner/more", b"{}", 404),
        "method-not-allowed": ("/v1/models", b"{}", 405),
    }
    for times, (path, body, code) in enumerate(sent.values(), start=1):
        for _ in range(times):
            response = client.post(path, content=body, headers={"content-type": "application/json"})
            assert response.status_code == code
    client.post("/v1/ha/ner", json={"inputs": "a"})
    for times, reason in enumerate(sent, start=1):
        assert value(client, "bistil_rejected_total", reason=reason) == times
    found = samples(client)
    by_code = {
        name: sum(number for (metric, labels), number in found.items() if metric == name and keep(dict(labels)))
        for name, keep in (
            ("bistil_requests_total", lambda labels: labels["code"] != "200"),
            ("bistil_rejected_total", lambda labels: True),
        )
    }
    assert by_code["bistil_requests_total"] == by_code["bistil_rejected_total"] == 21


def test_a_deadline_is_a_reason_too(serve: Serve) -> None:
    client = serve(timeout_s=1e-9)
    client.post("/v1/ha/ner", json={"inputs": "a"})
    assert value(client, "bistil_rejected_total", reason="deadline-exceeded") == 1
    assert value(client, "bistil_requests_total", lang="ha", task="ner", code="504") == 1


def test_the_ladder_is_geometric_from_a_quarter_millisecond_to_eight_seconds(client: TestClient) -> None:
    text = client.get("/metrics").text
    pattern = r'bistil_request_duration_seconds_bucket\{lang="ha",le="([^"]+)",task="ner"\}'
    bounds = [float(bound) for bound in re.findall(pattern, text)]
    assert bounds[-1] == math.inf
    assert (bounds[0], len(bounds)) == (0.00025, 32)
    assert 8 <= bounds[-2] < 8.2
    assert all(1.41 < after / before < 1.42 for before, after in pairwise(bounds[:-1]))


def test_names_follow_the_rules() -> None:
    for family in Metrics().registry.collect():
        assert family.name.startswith("bistil_")
        assert not re.search(r"_(ms|us|milliseconds)$", family.name)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_promtool_has_nothing_to_say(client: TestClient) -> None:
    client.post("/v1/ha/ner", json={"inputs": "Bola"})
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=client.get("/metrics").content, capture_output=True, check=False
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


def test_apps_have_registries_of_their_own(serve: Serve) -> None:
    first, second = serve(), serve()
    first.post("/v1/ha/ner", json={"inputs": "a"})
    assert value(second, "bistil_requests_total", lang="ha", task="ner", code="200") == 0
