"""Each expression of the dashboard, the alerts and the autoscaler, asked of a Prometheus that scrapes a busy server."""

import itertools
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.app import tiny
from tests.app.live import running, wait_until_ready
from tests.app.test_guard import familiar
from tests.helm.chart import CHART
from tests.helm.test_monitoring import DASHBOARD, EXPRESSIONS
from tests.patience import PATIENCE_S, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not on the PATH: apt-get install prometheus"
    ),
]
TEXTS = (tiny.SENTENCE, "Yara suna wasa a gida.", "Kano " * 40)
ENOUGH = """
(count_over_time(bistil_ready[5m]) > 8 and bistil_ready == 1)
  and on() (min(bistil_shadow_pairs_total) > 10)
  and on() (count(count by (code) (rate(bistil_requests_total{code=~"404|422"}[30s]) > 0)) == 2)
"""
"""Scraped, compared with the teacher and refused often enough that every panel has something to show."""
Ask = Callable[[str], list[dict[str, Any]]]


@contextmanager
def busy(url: str) -> Iterator[None]:
    """A client that asks for both tasks, and now and then for what is refused."""
    stop = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=url, timeout=PATIENCE_S) as client:
            for n_texts in itertools.cycle((1, 2, 3, 4)):
                for text in TEXTS:
                    for task in ("ner", "pos"):
                        client.post(f"/v1/ha/{task}", json={"inputs": [text] * n_texts})
                        if stop.wait(0.02):  # the teacher runs when nobody waits
                            return
                client.post("/v1/xx/ner", json={"inputs": "Ina kwana?"})
                client.post("/v1/ha/ner", json={"input": "Ina kwana?"})

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield
    finally:
        stop.set()
        client.join()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Ask]:
    """A Prometheus that scrapes ``target`` each second as pod ``a`` and has the alerts.

    Gives a way to ask it, always about the moment at which it had seen enough, whatever is scraped or missed later.
    """
    shutil.copy(CHART / "files" / "alerts.yaml", folder)
    labels = {"namespace": "nlp", "pod": "a"}
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [{"job_name": "bistil", "static_configs": [{"targets": [target], "labels": labels}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=error"]
    process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=folder)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            moment: dict[str, float] = {}

            def ask(expression: str) -> list[dict[str, Any]]:
                answer = client.get("/api/v1/query", params={"query": expression, **moment}).json()
                assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
                result = answer["data"]["result"]
                return result if answer["data"]["resultType"] == "vector" else [{"value": result}]

            def seen_enough() -> bool:
                try:
                    found = ask(ENOUGH)
                except (httpx2.TransportError, ValueError):
                    assert process.poll() is None, "Prometheus did not start"
                    return False
                if found:
                    moment["time"] = found[0]["value"][0]
                return bool(found)

            until(seen_enough)
            yield ask
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    folder = tmp_path_factory.mktemp("prometheus")
    for task in ("ner", "pos"):
        tiny.write_bundle(folder / "store", task, staged=folder / task, familiar=familiar(tiny.xlmr()))
    shadow = (
        "--shadow-teacher",
        str(folder / "store"),
        "--shadow-share",
        "1",
        "--shadow-time-share",
        "1",
        "--usd-per-hour",
        "1",
    )
    with running(folder / "store", *shadow) as server:
        wait_until_ready(server.url)
        with busy(server.url), prometheus(folder, server.url.removeprefix("http://")) as question:
            yield question


def filled_in(expression: str) -> str:
    """An expression as Grafana would send it with every language and task chosen."""
    for name, value in (
        ("$__rate_interval", "30s"),
        ("$lang", ".*"),
        ("$task", ".*"),
        ("$__range", "5m"),
        ("$price", "0.10"),
    ):
        expression = expression.replace(name, value)
    return expression


PANELS = [f"{panel['title']} {target['refId']}" for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("name", PANELS)
def test_every_panel_has_something_to_show(ask: Ask, name: str) -> None:
    result = ask(filled_in(EXPRESSIONS[name]))
    if not result:
        assert "bistil_energy_joules_total" in EXPRESSIONS[name], "only the energy may be missing"
        assert ask("bistil_energy_joules_total") == [], "and only where the machine does not tell it"
    assert all(float(series["value"][1]) >= 0 for series in result), result  # not a number fails too


def test_shares_of_the_stages_add_up(ask: Ask) -> None:
    shares = [float(series["value"][1]) for series in ask(filled_in(EXPRESSIONS["Share of each stage A"]))]
    assert len(shares) == 6
    assert sum(shares) == pytest.approx(1, abs=1e-6)


def test_the_dashboard_tells_what_was_answered_from_what_was_refused(ask: Ask) -> None:
    codes = {series["metric"]["code"] for series in ask(filled_in(EXPRESSIONS["Status codes A"]))}
    assert codes == {"200", "404", "422"}


# here the student is its own teacher, so that it is no faster is true
ALERTS = [name for name in EXPRESSIONS if name not in (*PANELS, "BistilNotFaster")]


@pytest.mark.parametrize("alert", ALERTS)
def test_a_healthy_server_raises_no_alert(ask: Ask, alert: str) -> None:
    assert ask(EXPRESSIONS[alert]) == []
    assert ask(f'ALERTS{{alertname="{alert}"}}') == []


def test_the_autoscalers_metrics_are_there_for_the_pod(ask: Ask) -> None:
    rules = yaml.safe_load((CHART / "files" / "prometheus-adapter.yaml").read_text("utf-8"))
    for rule in rules:
        series = re.sub(r"\{.*", "", rule["seriesQuery"])
        assert ask(rule["seriesQuery"])
        query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.GroupBy>>", "pod")
        (found,) = ask(query.replace("<<.LabelMatchers>>", 'namespace="nlp",pod=~"a|b"').replace("[1m]", "[30s]"))
        assert found["metric"] == {"pod": "a"}
        assert float(found["value"][1]) >= 0


def test_a_student_that_is_its_own_teacher_agrees_and_its_speed_has_an_interval(ask: Ask) -> None:
    (mean,), (low,), (high,) = (
        [
            float(series["value"][1])
            for series in ask(filled_in(EXPRESSIONS[f"Speed-up of one request {target}"]))
            if series["metric"]["task"] == "ner"
        ]
        for target in "ABC"
    )
    assert 0 < low <= mean <= high
    outcomes = {
        series["metric"]["outcome"]: float(series["value"][1])
        for series in ask(filled_in(EXPRESSIONS["Agreement with the teacher A"]))
    }
    assert outcomes.pop("match") == pytest.approx(1)
    assert set(outcomes.values()) == {0}
