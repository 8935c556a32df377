import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.energy import Ledger, Nvml, Rapl, open_meter
from app.errors import EngineError, MissingExtra
from app.metrics import Metrics
from tests.app.conftest import Serve
from tests.app.test_metrics import samples

STUDENT, SHADOW, IDLE = ("ha", "ner", "student"), ("ha", "ner", "shadow"), ("none", "none", "idle")


class Counted:
    """A meter and a clock that go where the test says."""

    def __init__(self) -> None:
        self.total, self.now = 100.0, 5.0

    def joules(self) -> float:
        if self.total < 0:
            raise OSError("gone")
        return self.total


def zone(root: Path, place: str, name: str, *, energy: int, largest: int = 999_999_999) -> Path:
    folder = root / place
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


def test_rapl_adds_packages_leaves_their_domains_and_counts_on_where_a_counter_wraps(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", energy=999_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1-die-0", energy=5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", energy=1)
    meter = Rapl.open(tmp_path)
    assert meter.joules() == 0
    (first / "energy_uj").write_text("2000000")
    (second / "energy_uj").write_text("6500000")
    assert meter.joules() == pytest.approx(3.0 + 1.5)
    (second / "energy_uj").write_text("7500000")
    assert meter.joules() == pytest.approx(5.5)


def test_the_platform_is_not_counted_beside_the_package_that_it_holds(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", energy=0)
    platform = zone(tmp_path, "intel-rapl:1", "psys", energy=0)
    meter = Rapl.open(tmp_path)
    (package / "energy_uj").write_text("3000000")
    (platform / "energy_uj").write_text("8000000")
    assert meter.joules() == pytest.approx(3.0)


def test_a_platform_alone_is_no_counter_of_a_package(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", energy=0)
    with pytest.raises(EngineError, match="shows no RAPL package"):
        Rapl.open(tmp_path)


def test_a_machine_without_counters_says_so_and_is_never_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(EngineError, match="shows no RAPL package"):
        Rapl.open(tmp_path)
    (zone(tmp_path, "intel-rapl:0", "package-0", energy=0) / "max_energy_range_uj").unlink()
    with pytest.raises(EngineError, match="max_energy_range_uj cannot be read: No such file"):
        Rapl.open(tmp_path)


class NvmlError(Exception):
    pass


def fake_nvml(**functions: Any) -> Any:
    return SimpleNamespace(
        NVMLError=NvmlError, nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda index: f"gpu {index}", **functions
    )


def test_nvml_reads_the_gpu_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = fake_nvml(nvmlDeviceGetTotalEnergyConsumption={"gpu 1": 2500}.__getitem__)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert Nvml.open(1).joules() == 2.5


def test_no_driver_and_no_library_are_unavailable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(handle: str) -> int:
        raise NvmlError("Not Supported")

    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlDeviceGetTotalEnergyConsumption=fail))
    assert open_meter("cuda:2") is None
    assert "energy is unavailable: NVML has no energy counter for GPU 2: Not Supported" in caplog.text
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtra, match=r"pip install '\.\[gpu\]'"):
        Nvml.open(0)


def test_use_is_split_by_engine_seconds_and_the_rest_is_idle() -> None:
    meter = Counted()
    ledger = Ledger(meter, usd_per_hour=3600.0, clock=lambda: meter.now)
    ledger.spend(STUDENT, 2.0)
    ledger.spend(SHADOW, 1.0)
    ledger.spend(STUDENT, 1.0)
    meter.total, meter.now = 300.0, 15.0
    used = dict(ledger.settle())
    assert {account: (use.joules, use.usd) for account, use in used.items()} == {
        STUDENT: pytest.approx((60.0, 3.0)),
        SHADOW: pytest.approx((20.0, 1.0)),
        IDLE: pytest.approx((120.0, 6.0)),
    }
    assert dict(ledger.settle()) == {}
    meter.total, meter.now = 310.0, 20.0
    list(ledger.settle())
    assert ledger.total(STUDENT).joules == pytest.approx(60.0)
    assert ledger.total(IDLE).joules == pytest.approx(130.0)


def test_engines_side_by_side_share_everything() -> None:
    meter = Counted()
    ledger = Ledger(meter, clock=lambda: meter.now)
    ledger.spend(STUDENT, 9.0)
    ledger.spend(SHADOW, 3.0)
    meter.total, meter.now = 180.0, 11.0
    assert [use.joules for _, use in ledger.settle()] == pytest.approx([60.0, 20.0, 0.0])


def test_a_counter_that_goes_away_leaves_no_zero_behind(caplog: pytest.LogCaptureFixture) -> None:
    meter = Counted()
    ledger = Ledger(meter, clock=lambda: meter.now)
    meter.total, meter.now = -1.0, 6.0
    assert [use.joules for _, use in ledger.settle()] == [None]
    assert ledger.total(STUDENT).joules is None
    assert "unavailable from now on: gone" in caplog.text


def test_series_are_what_the_ledger_says() -> None:
    meter = Counted()
    metrics = Metrics(Ledger(meter, usd_per_hour=36.0, clock=lambda: meter.now))
    metrics.ledger.spend(STUDENT, 4.0)
    meter.total, meter.now = 110.0, 13.0
    families = text_string_to_metric_families(metrics.render([], ready=True).decode())
    found = {
        (sample.name, sample.labels["role"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name in ("bistil_energy_joules_total", "bistil_cost_usd_total")
    }
    assert found == {
        ("bistil_energy_joules_total", "student"): pytest.approx(5.0),
        ("bistil_energy_joules_total", "idle"): pytest.approx(5.0),
        ("bistil_cost_usd_total", "student"): pytest.approx(0.04),
        ("bistil_cost_usd_total", "idle"): pytest.approx(0.04),
    }


def with_meter(monkeypatch: pytest.MonkeyPatch, serve: Serve, meter: Counted | None, **values: Any) -> TestClient:
    monkeypatch.setattr("app.main.open_meter", lambda device: meter)
    return serve(**values)


def test_the_list_of_models_tells_use_per_1000_requests(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Counted()
    client = with_meter(monkeypatch, serve, meter, usd_per_hour=1.0)
    for _ in range(4):
        client.post("/v1/ha/ner", json={"inputs": "Bola"})
    meter.total += 1000.0
    models = {(model["language"], model["task"]): model for model in client.get("/v1/models").json()["models"]}
    found = samples(client)
    joules = found["bistil_energy_joules_total", (("lang", "ha"), ("role", "student"), ("task", "ner"))]
    assert models["ha", "ner"]["joules_per_1000_requests"] == pytest.approx(250 * joules)
    assert 0 < joules < 1000
    assert models["ha", "ner"]["usd_per_1000_requests"] > 0
    assert models["sw", "ner"]["joules_per_1000_requests"] == 0


def test_what_the_machine_does_not_tell_is_unavailable(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    client = with_meter(monkeypatch, serve, None)
    client.post("/v1/ha/ner", json={"inputs": "Bola"})
    model = client.get("/v1/models").json()["models"][0]
    assert model["joules_per_1000_requests"] == model["usd_per_1000_requests"] == "unavailable"
    assert not [name for name, _ in samples(client) if name.startswith(("bistil_energy", "bistil_cost"))]
