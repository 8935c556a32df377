"""The live proof read where an operator reads it: from a Prometheus that scrapes a server under load."""

import asyncio
import json
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

from app.bench.contenders import Contender, Running, free_port, start
from app.bench.load import Body, closed_loop
from app.bench.report import Ratio
from app.errors import ConfigError, EngineError

_N, _S, _Q = (
    f"sum by (lang, task, mode) (bistil_shadow_{name})"
    for name in ("pairs_total", "log_speedup_sum", "log_speedup_sumsq")
)
_MEAN = f"{_S} / {_N}"
_HALF = f"1.96 * sqrt(({_Q} / {_N} - ({_MEAN}) ^ 2) / ({_N} - 1))"
SPEEDUP = "\nor\n".join(
    f'  label_replace(exp({logarithm}), "speedup", "{name}", "", "")'
    for name, logarithm in (("mean", _MEAN), ("low", f"{_MEAN} - {_HALF}"), ("high", f"{_MEAN} + {_HALF}"))
)
"""The geometric mean of teacher / student time and its 95 % interval, by language, task and mode."""
_SCRAPE_EVERY_S = 1
_PATIENCE_S = 60.0


def live(
    store: Path, teachers: Path, bodies: Sequence[Body], *, path: str, variant: str, threads: int, seconds: float
) -> Ratio:
    """The speed-up with single rows, after ``seconds`` of a closed loop of one client, all its requests sampled.

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
        with _prometheus(server) as url:
            until = time.monotonic() + _PATIENCE_S
            while not _query(url, "bistil_shadow_pairs_total"):
                _check(until, "the teacher was not loaded")
            asyncio.run(closed_loop(server.url, bodies, n_clients=1, seconds=seconds))
            time.sleep(2 * _SCRAPE_EVERY_S + 1)
            found = {entry["metric"]["speedup"]: float(entry["value"][1]) for entry in _singles(_query(url, SPEEDUP))}
    finally:
        server.close()
    if "mean" not in found:
        raise EngineError("the live proof measured no pair")
    name = "student against teacher, the live proof from Prometheus (95 % interval)"
    return Ratio(name=name, mean=found["mean"], low=found["low"], high=found["high"])


@contextmanager
def _prometheus(server: Running) -> Iterator[str]:
    """Its address, once it is up; it keeps nothing."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bistil-prometheus-") as name:
        folder = Path(name)
        scrape = {"job_name": "bistil", "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}
        wanted = {"global": {"scrape_interval": f"{_SCRAPE_EVERY_S}s"}, "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(json.dumps(wanted), encoding="utf-8")
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _query(url: str, expression: str) -> list[dict[str, Any]]:
    """The samples of an expression now; none while Prometheus is starting."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}") as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


def _singles(samples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (sample for sample in samples if sample["metric"]["mode"] == "single")


def _check(until: float, fault: str) -> None:
    if time.monotonic() > until:
        raise EngineError(fault)
    time.sleep(0.2)
