"""The live proof read where an operator reads it: from a Prometheus that scrapes a server under load."""

import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.bench.contenders import Contender, free_port, start
from app.bench.load import Body, closed_loop
from app.bench.report import Ratio
from app.errors import ConfigError, EngineError

_N, _S, _Q = (
    f"sum by (lang, task, mode) ({series})"
    for series in (
        "bistil_shadow_pairs_total",
        "bistil_shadow_log_speedup_sum - bistil_shadow_log_slowdown_sum",
        "bistil_shadow_log_speedup_sumsq",
    )
)
_MEAN = f"{_S} / {_N}"
_HALF = f"1.96 * sqrt(({_Q} / {_N} - ({_MEAN}) ^ 2) / ({_N} - 1))"
SPEEDUP = "\nor\n".join(
    f'  label_replace(exp({logarithm}), "speedup", "{name}", "", "")'
    for name, logarithm in (("mean", _MEAN), ("low", f"{_MEAN} - {_HALF}"), ("high", f"{_MEAN} + {_HALF}"))
)
"""The geometric mean of teacher / student time and its 95 % interval, by language, task and mode."""
_SCRAPE_EVERY_S = 1
_PATIENCE_S = 180.0
# about 35 requests a second: while one runs, nothing is timed, so that a client that never waits would leave no pair
_N_CLIENTS = 4
_PAUSE_S = 0.1
PAUSE_S = _PAUSE_S / _N_CLIENTS
"""The mean time between two requests, where answers take next to none."""


def live(
    store: Path, teachers: Path, bodies: Sequence[Body], *, path: str, variant: str, threads: int, seconds: float
) -> Ratio:
    """The speed-up with single rows, after ``seconds`` of a few clients that pause between requests, all sampled.

    :raises ConfigError: there is no ``prometheus`` on the PATH.
    :raises EngineError: the server or Prometheus does not answer, or no pair was measured.
    """
    if shutil.which("prometheus") is None:
        raise ConfigError("the live proof needs prometheus: apt-get install prometheus")
    sampled = ("--shadow-teacher", str(teachers), "--shadow-share", "1", "--shadow-time-share", "1")
    flags = (f"--variant={variant}",) if variant else ()
    command = (sys.executable, "-m", "app.main", "--store", str(store), "--threads", str(threads), *flags, *sampled)
    server = start(Contender(name="live proof", command=(*command, "--port"), path=path, loads=()))
    try:
        server.wait(bodies[0])
        with scraping(server.port) as prometheus:
            _until_answered(prometheus, "bistil_shadow_pairs_total", fault="the teacher was not loaded")
            answers = closed_loop(server.url, bodies, n_clients=_N_CLIENTS, seconds=seconds, pause_s=_PAUSE_S)
            return speedup(prometheus, n_samples=len(answers))
    finally:
        server.close()


@contextmanager
def scraping(port: int) -> Iterator[str]:
    """The address of a Prometheus that scrapes the server on ``port``, and may still be starting; it keeps nothing."""
    own = free_port()
    with tempfile.TemporaryDirectory(prefix="bistil-prometheus-") as name:
        folder = Path(name)
        scrape = {"job_name": "bistil", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        wanted = {"global": {"scrape_interval": f"{_SCRAPE_EVERY_S}s"}, "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(json.dumps(wanted), encoding="utf-8")
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{own}"
        finally:
            process.terminate()
            process.wait()


def speedup(prometheus: str, *, n_samples: int) -> Ratio:
    """What ``SPEEDUP`` says of mode ``single`` once ``n_samples`` requests, measured or dropped, have been scraped.

    :raises EngineError: Prometheus has not seen as many for three minutes, or none of them was measured.
    """
    seen = 'sum(bistil_shadow_pairs_total{mode="single"}) + sum(bistil_shadow_dropped_total)'
    said = _until_answered(
        prometheus, f"({SPEEDUP}) and on() ({seen} >= {n_samples})", fault=f"{n_samples} samples were not scraped"
    )
    singles = (sample for sample in said if sample["metric"]["mode"] == "single")
    found = {sample["metric"]["speedup"]: float(sample["value"][1]) for sample in singles}
    if math.isnan(found["mean"]):
        raise EngineError("the live proof measured no pair")
    name = "student against teacher, the live proof from Prometheus (95 % interval)"
    return Ratio(name=name, mean=found["mean"], low=found["low"], high=found["high"])


def _until_answered(prometheus: str, expression: str, *, fault: str) -> list[dict[str, Any]]:
    """The samples of an expression, as soon as it has any."""
    until = time.monotonic() + _PATIENCE_S
    while not (found := _query(prometheus, expression)):
        if time.monotonic() > until:
            raise EngineError(f"the live proof waited {_PATIENCE_S:g} s: {fault}")
        time.sleep(0.2)
    return found


def _query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The samples of an expression now; none while Prometheus is starting."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []
