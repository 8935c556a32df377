import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from app.errors import ConfigError
from distill.training import Batch, Schedule, train


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def batches(index: int) -> Batch:
    generator = torch.Generator().manual_seed(index)
    x = torch.randn(6, 4, generator=generator)
    return {"input_ids": x, "y": x.sum(dim=1, keepdim=True), "attention_mask": torch.ones(6, 1)}


def schedule(**changes: object) -> Schedule:
    values = {"steps": 12, "learning_rate": 1e-2, "checkpoint_every": 4, "log_every": 3, "precision": "fp32"}
    return Schedule(**{**values, **changes})  # type: ignore[arg-type]


def fit(folder: Path, *, stop_at: int | None = None, **changes: object) -> nn.Module:
    net = model()
    seen = 0

    def loss(batch: Batch) -> dict[str, Tensor]:
        nonlocal seen
        seen += 1
        if stop_at is not None and seen > stop_at:
            raise KeyboardInterrupt
        return {"squared": (net(batch["input_ids"]) - batch["y"]).square().mean()}

    train(net, loss, batches, schedule=schedule(**changes), folder=folder, name="test")
    return net


@pytest.mark.parametrize("stop_at", [3, 4, 7, 11])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_stopped_anywhere_ends_like_an_uninterrupted_one(tmp_path: Path, stop_at: int, accumulate: int) -> None:
    whole = fit(tmp_path / "whole", accumulate=accumulate).state_dict()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", stop_at=stop_at, accumulate=accumulate)
    resumed = fit(tmp_path / "cut", accumulate=accumulate).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resumed_run_tells_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    fit(tmp_path / "whole", steps=11)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", steps=11, stop_at=7)
    fit(tmp_path / "cut", steps=11)
    whole, cut = (json.loads((tmp_path / name / "checkpoint" / "run.json").read_text()) for name in ("whole", "cut"))
    assert whole["tokens"] == 11 * 6
    assert (cut["tokens"], cut["terms"]) == (whole["tokens"], whole["terms"])


def test_a_checkpoint_torn_between_two_renames_is_found_again(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", stop_at=9)
    (tmp_path / "cut" / "checkpoint").rename(tmp_path / "cut" / "checkpoint.old")
    resumed = fit(tmp_path / "cut").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_accumulated_micro_batches_give_the_gradient_of_their_mean(tmp_path: Path) -> None:
    net = nn.Linear(4, 1)
    start = {name: value.clone() for name, value in net.state_dict().items()}

    def loss(batch: Batch) -> dict[str, Tensor]:
        return {"squared": (net(batch["input_ids"]) - batch["y"]).square().mean()}

    train(
        net,
        loss,
        batches,
        schedule=schedule(steps=1, accumulate=3, decay="constant", clip_norm=0.0),
        folder=tmp_path,
        name="test",
    )
    other = nn.Linear(4, 1)
    other.load_state_dict(start)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=0.0)
    (sum((other(batches(i)["input_ids"]) - batches(i)["y"]).square().mean() for i in range(3)) / 3).backward()
    optimizer.step()
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_accumulation_gives_the_weights_of_one_big_batch(tmp_path: Path) -> None:
    def part_of(size: int, index: int) -> Batch:
        whole = batches(index * size // 6)
        rows = slice(index * size % 6, index * size % 6 + size)
        return {name: value[rows] for name, value in whole.items()}

    made = []
    for size in (6, 2):
        torch.manual_seed(0)
        net = nn.Linear(4, 1)

        def loss(batch: Batch, net: nn.Module = net) -> dict[str, Tensor]:
            return {"squared": (net(batch["input_ids"]) - batch["y"]).square().mean()}

        train(
            net,
            loss,
            partial(part_of, size),
            schedule=schedule(accumulate=6 // size),
            folder=tmp_path / str(size),
            name="test",
        )
        made.append(net.weight.detach())
    torch.testing.assert_close(made[0], made[1], atol=1e-4, rtol=1e-4)


def test_the_weights_with_the_best_score_win(tmp_path: Path) -> None:
    net = nn.Linear(4, 1)
    scores = iter([1.0, 3.0, 2.0])
    at: list[Tensor] = []

    def score() -> float:
        at.append(net.weight.detach().clone())
        return next(scores)

    def loss(batch: Batch) -> dict[str, Tensor]:
        return {"squared": (net(batch["input_ids"]) - batch["y"]).square().mean()}

    trained = train(net, loss, batches, schedule=schedule(evaluate_every=4), folder=tmp_path, name="test", score=score)
    assert trained.best == 3.0 and len(at) == 3
    assert torch.equal(net.weight, at[1])


def test_masked_entries_never_change(tmp_path: Path) -> None:
    net = nn.Linear(4, 1)
    start = net.weight.detach().clone()
    mask = {"weight": torch.tensor([[True, False, False, True]])}

    def loss(batch: Batch) -> dict[str, Tensor]:
        return {"squared": (net(batch["input_ids"]) - batch["y"]).square().mean()}

    train(net, loss, batches, schedule=schedule(), folder=tmp_path, name="test", mask=mask)
    assert torch.equal(net.weight.detach() != start, mask["weight"])


def test_a_loss_that_explodes_says_so(tmp_path: Path) -> None:
    net = nn.Linear(4, 1)
    with pytest.raises(ConfigError, match="learning_rate"):
        train(
            net,
            lambda b: {"bad": net(b["input_ids"]).sum() / 0.0},
            batches,
            schedule=schedule(),
            folder=tmp_path,
            name="t",
        )


def test_schedules_rise_and_fall_as_named() -> None:
    linear = schedule(steps=10, warmup_steps=2)
    assert [linear.factor(step) for step in (0, 1, 2, 6)] == [0.5, 1.0, 1.0, 0.5]
    flat = schedule(steps=8, decay="trapezoid")
    assert [flat.factor(step) for step in (0, 6, 7)] == [1.0, 1.0, 0.5]
    half = schedule(steps=8, decay="trapezoid", decay_share=0.5)
    assert [half.factor(step) for step in (4, 5, 7)] == [1.0, 0.75, 0.25]
