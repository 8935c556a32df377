"""The live proof as a Prometheus sees it, against the pairs that the server counts."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.bench.live import live, scraping, speedup
from app.errors import ConfigError
from tests.app import tiny
from tests.app.live import running, wait_until_ready
from tests.patience import get, post, until

N_REQUESTS = 12
SAMPLED = ("--shadow-share", "1", "--shadow-time-share", "1")
SINGLE = {"lang": "ha", "task": "ner", "mode": "single"}


def total(url: str, name: str, **labels: str) -> float:
    """The sum of a server's samples of this name that have these labels; NaN where there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(get(f"{url}/metrics").text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else math.nan


def wait_for_pairs(url: str, n: int) -> None:
    until(lambda: total(url, "bistil_shadow_pairs_total", **SINGLE) == n)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus: apt-get install prometheus")
def test_prometheus_says_the_geometric_mean_and_interval_of_the_pairs_that_the_server_timed(
    store: Path, tmp_path: Path
) -> None:
    teachers = tiny.write_store(tmp_path, tasks=("ner",))
    flags = ("--lang", "ha", "--tasks", "ner", "--shadow-teacher", str(teachers), *SAMPLED)
    with running(store, *flags) as server, scraping(int(server.url.rpartition(":")[2])) as prometheus:
        url = server.url
        wait_until_ready(url)
        wait_for_pairs(url, 0)  # the series are there when the teacher is
        sums = [0.0]
        for number in range(1, N_REQUESTS + 1):
            assert post(f"{url}/v1/ha/ner", json={"inputs": tiny.SENTENCE}).status_code == 200
            wait_for_pairs(url, number)
            faster, slower = (total(url, f"bistil_shadow_log_{way}_sum", **SINGLE) for way in ("speedup", "slowdown"))
            sums.append(faster - slower)
        assert total(url, "bistil_shadow_dropped_total") == 0
        said = speedup(prometheus, n_samples=N_REQUESTS)
    logarithms = np.diff(sums)
    half = 1.96 * np.std(logarithms, ddof=1) / np.sqrt(N_REQUESTS)
    expected = np.exp(np.mean(logarithms) + np.array([-half, 0, half]))
    assert (said.low, said.mean, said.high) == pytest.approx(tuple(expected), rel=1e-9)


def test_without_prometheus_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="apt-get install prometheus"):
        live(tmp_path, tmp_path, [], path="/v1/ha/ner", variant="", threads=1, seconds=1.0)
