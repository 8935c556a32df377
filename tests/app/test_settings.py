import json
import re
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import Settings, cpus, default_store
from tests.helm.config_schema import OF_THE_CHART, SCHEMA, config_schema


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"BISTIL_{field.upper()}", raising=False)


def test_every_field_is_a_flag_and_a_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        Settings.from_flags(["--help"])
    flags = set(re.findall(r"--([a-z-]+)", capsys.readouterr().out)) - {"help", "no-docs", "print-completion"}
    assert flags == {field.replace("_", "-") for field in Settings.model_fields}


def test_every_field_is_a_key_of_the_charts_config_but_those_that_the_chart_sets() -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))["$defs"]["config"]
    assert set(schema["properties"]) == set(Settings.model_fields) - OF_THE_CHART
    assert schema == config_schema(), "a setting has changed: run `python -m tests.helm.config_schema`"


def test_flags_win_over_variables_and_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISTIL_PORT", "9000")
    monkeypatch.setenv("BISTIL_TOKEN_BUDGET", "512")
    monkeypatch.setenv("BISTIL_DOCS", "false")
    settings = Settings.from_flags(["--port", "9001"])
    assert (settings.port, settings.token_budget, settings.docs, settings.max_inputs) == (9001, 512, False, 64)
    assert Settings.from_flags(["--docs"]).docs


def test_lists_repeat_and_split_on_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_flags(["--lang", "ha", "--lang", "sw,yo", "--tasks", "ner,pos"]).lang == ("ha", "sw", "yo")
    monkeypatch.setenv("BISTIL_LANG", "ha, ig")
    assert Settings.from_flags([]).lang == ("ha", "ig")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "http"], "--port"),
        (["--token-budget", "0"], "--token-budget"),
        (["--device", "tpu"], "--device"),
        (["--drain-timeout-s", "inf"], "--drain-timeout-s"),
        (["--port", "-1", "--threads", "x"], "--threads.*--port|--port.*--threads"),
    ],
)
def test_every_value_that_cannot_be_used_is_named(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.from_flags(flags)


def test_an_unknown_flag_ends_the_program() -> None:
    with pytest.raises(SystemExit, match="2"):
        Settings.from_flags(["--prot", "80"])


def test_a_service_link_of_kubernetes_is_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BISTIL_PORT", "tcp://10.96.0.12:80")
    assert Settings.read().port == 8000


def test_the_default_store_is_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_store").mkdir()
    assert default_store() == "model_store"
    monkeypatch.setenv("BISTIL_STORE", "/somewhere")
    assert Settings.read().store == "/somewhere"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_threads_follow_the_cgroup_then_the_affinity(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpus(tmp_path) == expected


def test_given_threads_win() -> None:
    assert Settings.read(threads=3).n_threads == 3
    assert Settings.read().n_threads >= 1
