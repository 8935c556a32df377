import math
import re
from itertools import pairwise
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.metrics import Metrics
from tests.app import tiny
from tests.app.conftest import Serve


def samples(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(client: TestClient, name: str, **labels: str) -> float:
    return samples(client)[name, tuple(sorted(labels.items()))]


def test_every_series_is_there_before_traffic(client: TestClient) -> None:
    found = samples(client)
    for task in tiny.TASKS:
        for code in ("200", "404", "413", "422", "499", "500", "503", "504"):
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


def test_rejections_have_their_reason(serve: Serve) -> None:
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


def test_apps_have_registries_of_their_own(serve: Serve) -> None:
    first, second = serve(), serve()
    first.post("/v1/ha/ner", json={"inputs": "a"})
    assert value(second, "bistil_requests_total", lang="ha", task="ner", code="200") == 0
