"""`pretrain --dry-run`: costs worked out by hand, parts that are there already, and nothing written."""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, PreTrainedModel

from distill import config as configuration
from distill.__main__ import main
from distill.pretrain import Pretraining
from distill.pretrain_estimate import StepTime, remaining, time_step
from tests.distill import corpora
from tests.distill.test_pretrain import CONFIG

STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and a pretraining of it that has ended, in `work`."""
    folder = tmp_path_factory.mktemp("pretrain-estimate")
    corpora.write(folder / "data")
    config = folder / "run.toml"
    config.write_text(CONFIG.format(out=folder / "out", data=folder / "data", steps=STEPS))
    assert main(["pretrain", str(config), "--work", str(folder / "work")]) == 0
    return folder


def run_of(folder: Path, **changes: object) -> Pretraining:
    return configuration.read(Pretraining, [configuration.toml(folder / "run.toml"), changes])


def clock(model: PreTrainedModel, run: Pretraining) -> StepTime:
    return StepTime(forward=1.0, both=10.0, update=1000.0)


def test_training_is_its_micro_batches_there_and_back_and_its_updates(folder: Path, tmp_path: Path) -> None:
    run = run_of(folder, schedule={"accumulate": 3})
    costs = {cost.name: cost for cost in remaining(run, work=tmp_path / "none", clock=clock)}
    assert list(costs) == ["tokenizer", "pack", "train", "held-out loss"]
    assert costs["train"].seconds == STEPS * (3 * 10 + 1000)
    # two languages of 64 blocks in micro-batches of 8
    assert costs["held-out loss"].seconds == 2 * 8 * 1
    assert costs["tokenizer"].seconds > 0 and not any(cost.is_done for cost in costs.values())
    assert not (tmp_path / "none").exists()


def test_what_has_ended_is_done_and_a_checkpoint_leaves_the_steps_after_it(folder: Path) -> None:
    costs = remaining(run_of(folder), work=folder / "work", clock=clock)
    assert all(cost.is_done for cost in costs)
    longer = run_of(folder, schedule={"steps": STEPS + 4})
    costs = remaining(longer, work=folder / "work", clock=clock)
    assert [cost.is_done for cost in costs] == [True, True, False, False]
    assert costs[2].seconds == 4 * (10 + 1000)
    shorter = run_of(folder, sequence_length=12)
    assert not remaining(shorter, work=folder / "work", clock=clock)[1].is_done


def test_disk_is_what_a_run_left(folder: Path) -> None:
    costs = {cost.name: cost for cost in remaining(run_of(folder), work=folder / "work", clock=clock)}
    arrow = sum(path.stat().st_size for path in (folder / "work" / "packed").rglob("*.arrow"))
    assert costs["pack"].disk == pytest.approx(arrow, rel=0.25)
    model = AutoModelForMaskedLM.from_pretrained(folder / "out")
    assert costs["train"].disk == 3 * 4 * model.num_parameters()
    assert costs["held-out loss"].disk == 2 * model.num_parameters()


def test_of_a_teacher_whose_head_learns_the_encoder_is_frozen_and_as_deep_as_is_kept(folder: Path) -> None:
    start = {"model": str(folder / "out"), "layers": 1, "train": "head"}
    seen: list[PreTrainedModel] = []

    def look(model: PreTrainedModel, run: Pretraining) -> StepTime:
        seen.append(model)
        return time_step(model, run)

    costs = remaining(run_of(folder, start=start), work=folder / "elsewhere", clock=look)
    (model,) = seen
    assert costs[0].name == "trim" and model.config.num_hidden_layers == 1
    head = {name for name, value in model.named_parameters() if value.requires_grad}
    assert head and all(name.startswith("lm_head") for name in head)
    learnt = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert costs[2].disk == 4 * (model.num_parameters() + 2 * learnt) and costs[2].seconds > 0


def test_a_dry_run_tells_every_part_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert main(["pretrain", str(folder / "run.toml"), "--work", str(folder / "fresh"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    for name in ("tokenizer", "pack", "train", "held-out loss", "in all"):
        assert re.search(rf"{name} .*\d (s|min|h) .*\d (MB|GB) ", told), f"{name} is not in\n{told}"
    assert sorted(folder.rglob("*")) == before
    assert json.loads((folder / "out" / "pretrain.json").read_text())["tokens"] > 0
