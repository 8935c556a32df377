"""The dashboard and the alerts: they name metrics that the server has, and Prometheus' own tools accept them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import Metrics
from tests.helm.chart import CHART, example, one, render

DASHBOARD: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text("utf-8"))
PROMTOOL = Path(__file__).parent / "promtool"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count"), "counter": ("_total",)}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on the PATH: apt-get install prometheus"
)


def expressions() -> Iterator[tuple[str, str]]:
    """A name and the expression of every panel and alert."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


EXPRESSIONS = dict(expressions())


def exported() -> set[str]:
    """The name of every sample the server can have."""
    names = set()
    for family in text_string_to_metric_families(Metrics().render([], ready=True).decode()):
        names |= {family.name + suffix for suffix in SUFFIXES.get(family.type, ("",))}
    return names


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_metric_named_is_one_that_the_server_exports(name: str) -> None:
    named = set(re.findall(r"\bbistil_\w+", EXPRESSIONS[name]))
    assert named
    assert named <= exported()


def test_panels_lie_beside_each_other_and_have_what_a_reader_needs() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_cluster_gets_the_files_as_they_are() -> None:
    manifests = render(example("object-store"))
    assert one(manifests, "PrometheusRule")["spec"] == ALERTS
    assert json.loads(one(manifests, "ConfigMap")["data"]["bistil.json"]) == DASHBOARD


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_alerts_fire_on_their_faults_and_on_nothing_else(tmp_path: Path) -> None:
    for path in (CHART / "files" / "alerts.yaml", PROMTOOL / "alerts.test.yaml"):
        shutil.copy(path, tmp_path)
    assert f"{len(ALERTS['groups'][0]['rules'])} rules found" in promtool(
        "check", "rules", "alerts.yaml", folder=tmp_path
    )
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yaml", folder=tmp_path)


def test_every_alert_is_tested_in_both_directions() -> None:
    expected: dict[str, set[bool]] = {}
    for test in yaml.safe_load((PROMTOOL / "alerts.test.yaml").read_text("utf-8"))["tests"]:
        for case in test["alert_rule_test"]:
            expected.setdefault(case["alertname"], set()).add(bool(case["exp_alerts"]))
    assert expected == {rule["alert"]: {True, False} for group in ALERTS["groups"] for rule in group["rules"]}
