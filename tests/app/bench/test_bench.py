"""The whole benchmark, on models of one and two layers."""

import json
import shutil
from pathlib import Path

import pytest

from app.bench import __main__ as bench
from app.bench.__main__ import MODELS, main, specs
from app.errors import ConfigError


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_run_measures_every_contender_and_prints_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("litserve", "torch", "transformers"):
        pytest.importorskip(package)
    target = tmp_path / "bench.json"
    sizes = ["--student", "1x32x300", "--teacher", "2x32x600"]
    proof = [] if shutil.which("prometheus") is None else ["--live"]
    assert main([*sizes, "--quick", "--seconds", "0.1", "--threads", "1", "--json", str(target), *proof]) == 0
    printed = capsys.readouterr().out
    (found,) = json.loads(target.read_text()).values()
    measured = {(cell["contender"], cell["load"]) for cell in found["rounds"][0]}
    servers = ("bistil-serve", "FastAPI + pipeline", "LitServe + pipeline")
    assert measured == {
        *((server, load) for server in servers for load in ("1", "8", "64", "list")),
        *(("teacher, FastAPI + pipeline", load) for load in ("1", "8", "64")),
        *(("engine, no server", load) for load in ("1", "64", "list")),
    }
    assert all(ratio["mean"] > 0 for ratio in found["ratios"])
    assert found["conditions"]["load_generator"] == "on the same machine"
    assert "| p50, 1 client, against teacher, FastAPI + pipeline |" in printed
    assert "| student against teacher, same engine and precision, no server (95 % interval) |" in printed
    for name in ("the same, with the pauses of the live proof", "the live proof / no server"):
        assert (f"| {name} (95 % interval) |" in printed) == bool(proof)


@pytest.mark.parametrize("name", MODELS)
def test_the_models_named_by_default_can_be_made_wherever_it_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    from distill.random_models import _configured

    monkeypatch.chdir(tmp_path)
    for spec in specs(name):
        config, tokenizer = _configured(spec)
        assert config.vocab_size == tokenizer.get_vocab_size()


def test_the_embedded_student_is_the_newest_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STORE", tmp_path)
    with pytest.raises(ConfigError, match="ner holds no bundle: name a --student and a --teacher"):
        specs("embedded")
    for revision in ("9", "10", "latest"):
        (tmp_path / "ha" / "ner" / revision).mkdir(parents=True)
    assert specs("embedded")[0] == str(tmp_path / "ha" / "ner" / "10")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "xlmr"], "unknown models 'xlmr'; choose from: mbert, embedded"),
        (["--student", "1x32x300"], "--student and --teacher go together"),
    ],
)
def test_what_cannot_be_measured_is_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
