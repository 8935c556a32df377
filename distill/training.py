"""The one training loop: pretraining, phase 1, task teachers and both phases of sparse fine-tuning run through it."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from app.errors import ConfigError
from distill import processes

Batch = dict[str, Tensor]
Terms = Mapping[str, Tensor]

_PASSES, _TOKENS = "#passes", "#tokens"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, how fast and how often. Steps are optimiser steps; each makes `accumulate` forward passes.

    A trapezoid is constant up to the last `decay_share` of the steps, then falls to zero in a line. A head learns at
    `head_rate` times the learning rate.
    """

    steps: int
    learning_rate: float
    head_rate: float = 1.0
    warmup_steps: int = 0
    decay: Literal["linear", "cosine", "constant", "trapezoid"] = "linear"
    decay_share: float = 0.25
    accumulate: int = 1
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    optimizer: Literal["adamw", "muon"] = "adamw"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 42
    log_every: int = 20
    checkpoint_every: int = 500
    evaluate_every: int = 0

    def factor(self, step: int) -> float:
        """Learning-rate multiplier of optimiser step `step`, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        if self.decay == "linear":
            return 1.0 - done
        if self.decay == "cosine":
            return 0.5 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi))))
        if self.decay == "trapezoid":
            return min(1.0, (1.0 - done) / self.decay_share)
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a finished run tells: each loss term's mean over the last logged stretch, and the best score, if any."""

    terms: dict[str, float]
    best: float | None
    tokens: int
    seconds: float


def train(
    model: nn.Module,
    loss: Callable[[Batch], Terms],
    batches: Callable[[int], Batch],
    *,
    schedule: Schedule,
    folder: Path,
    name: str,
    score: Callable[[], float] | None = None,
    mask: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Minimise the sum of `loss`'s terms over the parameters of `model` that require gradients.

    `batches(i)` gives micro-batch i and must depend on nothing else: that, a generator reseeded for every micro-batch
    and an atomic checkpoint every `checkpoint_every` steps make a killed run end where an uninterrupted one does.
    `score` (higher is better) is asked every `evaluate_every` steps and after the last one; the best weights win.
    `mask`: parameter name -> boolean tensor of its shape; entries that are false never change.

    Under `accelerate launch` the processes share the micro-batches of a step and add up their gradients, so that the
    losses are those of one process. Raises ConfigError where `accumulate` cannot be shared.
    """
    where, several = processes.device(), processes.count()
    if schedule.accumulate % several:
        raise ConfigError(
            f"{name}: {several} processes cannot share accumulate = {schedule.accumulate} micro-batches a step: give a "
            f"multiple of {several}, and a batch_size as much smaller for the same step"
        )
    half = is_half(schedule)
    if processes.is_main():
        folder.mkdir(parents=True, exist_ok=True)
    processes.place(model)
    chosen = optimizers(model, schedule, masked=mask is not None)
    keep = {key: value.to(where) for key, value in (mask or {}).items()}
    with processes.main_first():
        run = _Run.resume(folder, model=model, optimizers=chosen)
    model.train()
    named = dict(model.named_parameters(remove_duplicate=False))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    started, meter = time.perf_counter(), _Meter()
    with _progress(name, schedule.steps, run.step, enabled=processes.is_main()) as report:
        while run.step < schedule.steps:
            factor = schedule.factor(run.step)
            for optimizer in chosen:
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * factor
            for part in range(processes.index(), schedule.accumulate, several):
                index = run.step * schedule.accumulate + part
                torch.manual_seed(schedule.seed * 1_000_003 + index)
                batch = {key: value.to(where, non_blocking=True) for key, value in batches(index).items()}
                with torch.autocast(where.type, dtype=torch.bfloat16, enabled=half):
                    terms = loss(batch)
                    total = torch.stack([term.float() for term in terms.values()]).sum() / schedule.accumulate
                total.backward()
                meter.add(terms, tokens=batch["attention_mask"].sum())
            processes.add_up_gradients(parameters)
            for key, kept in keep.items():
                gradient = named[key].grad
                if gradient is not None:
                    gradient.mul_(kept)
            if schedule.clip_norm:
                nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
            for optimizer in chosen:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            run.step += 1
            last = run.step == schedule.steps
            checkpoints = last or run.step % schedule.checkpoint_every == 0
            if checkpoints or run.step % schedule.log_every == 0:
                entry = meter.flush(run.step)
                run.tokens += int(entry["tokens"])
                run.terms = entry["terms"]
                if not all(value == value and abs(value) < float("inf") for value in run.terms.values()):
                    raise ConfigError(f"{name}: the loss is no longer finite at step {run.step}: lower learning_rate")
                _log(folder, {**entry, "learning_rate": schedule.learning_rate * factor})
                report(run.step, entry)
            if score is not None and (last or (schedule.evaluate_every and run.step % schedule.evaluate_every == 0)):
                _score(score, run, model, folder)
            if checkpoints:
                run.seconds += time.perf_counter() - started
                started = time.perf_counter()
                if processes.is_main():
                    run.save(folder, model=model, optimizers=chosen)
    processes.wait()
    if score is not None and schedule.steps:
        _load_weights(folder / "best.safetensors", model)
    model.eval()
    return Trained(terms=run.terms, best=run.best, tokens=run.tokens, seconds=run.seconds)


@torch.no_grad()
def _score(score: Callable[[], float], run: "_Run", model: nn.Module, folder: Path) -> None:
    """The main process scores, and keeps the best weights; the others go on and wait for its gradients."""
    if not processes.is_main():
        return
    model.eval()
    value = float(score())
    model.train()
    _log(folder, {"step": run.step, "score": value})
    if run.best is None or value > run.best:
        run.best = value
        _save_weights(folder / "best.safetensors", model)


def bf16_is_native() -> bool:
    """Whether this machine multiplies bf16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def is_half(schedule: Schedule) -> bool:
    """Whether forward passes are in bf16: as the schedule says, else where the machine has it."""
    return schedule.precision == "bf16" or (schedule.precision == "auto" and bf16_is_native())


_ENCODER = ("embeddings.", "encoder.")


def optimizers(model: nn.Module, schedule: Schedule, *, masked: bool) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon (Jordan 2024) for the layers' matrices and AdamW for the rest."""
    if masked and (schedule.weight_decay or schedule.optimizer != "adamw"):
        raise ConfigError("a sparse phase needs optimizer = 'adamw' and weight_decay = 0: others move masked entries")
    named = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
    if not named:
        raise ConfigError("nothing to train: every parameter is frozen")
    matrices = [v for k, v in named if v.ndim == 2 and ".layer." in k] if schedule.optimizer == "muon" else []
    of_muon = {id(value) for value in matrices}
    rest = [value for _, value in named if id(value) not in of_muon]
    chosen: list[torch.optim.Optimizer] = []
    if matrices:
        chosen.append(
            torch.optim.Muon(
                matrices, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    betas = (0.9, 0.98) if schedule.optimizer == "muon" else (0.9, 0.999)
    heads = {id(value) for key, value in named if not any(part in key for part in _ENCODER)}
    groups = [
        {
            "params": [v for v in rest if (v.ndim >= 2) == decays and (id(v) in heads) == of_head],
            "lr": schedule.learning_rate * (schedule.head_rate if of_head else 1.0),
            "weight_decay": schedule.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
        for of_head in (False, True)
    ]
    chosen.append(
        torch.optim.AdamW([g for g in groups if g["params"]], lr=schedule.learning_rate, betas=betas, fused=True)
    )
    for optimizer in chosen:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return chosen


@dataclass(kw_only=True)
class _Run:
    """The state beside weights and optimisers that a checkpoint keeps."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    terms: dict[str, float]

    @classmethod
    def resume(cls, folder: Path, *, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> "_Run":
        checkpoint = folder / "checkpoint"
        if not checkpoint.is_dir() and (folder / "checkpoint.old").is_dir():
            (folder / "checkpoint.old").rename(checkpoint)
        if not checkpoint.is_dir():
            return cls(terms={})
        _load_weights(checkpoint / "model.safetensors", model)
        states = torch.load(checkpoint / "optimizers.pt", map_location=processes.device(), weights_only=True)
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        run = cls(**json.loads((checkpoint / "run.json").read_text()))
        if processes.is_main():
            print(f"resuming {folder} at step {run.step}")
        return run

    def save(self, folder: Path, *, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        fresh, old, current = folder / "checkpoint.new", folder / "checkpoint.old", folder / "checkpoint"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        _save_weights(fresh / "model.safetensors", model)
        torch.save([optimizer.state_dict() for optimizer in optimizers], fresh / "optimizers.pt")
        (fresh / "run.json").write_text(json.dumps(vars(self)))
        for path in fresh.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(old, ignore_errors=True)
        if current.is_dir():
            current.rename(old)
        fresh.rename(current)
        shutil.rmtree(old, ignore_errors=True)


def _save_weights(path: Path, model: nn.Module) -> None:
    """Every trainable or buffered tensor once; tied tensors share one entry."""
    seen: dict[int, str] = {}
    tensors = {}
    for key, value in model.state_dict().items():
        if value.data_ptr() not in seen or value.numel() == 0:
            seen[value.data_ptr()] = key
            tensors[key] = value.detach().contiguous()
    fresh = path.with_suffix(".tmp")
    save_file(tensors, fresh)
    fresh.replace(path)


def _load_weights(path: Path, model: nn.Module) -> None:
    missing, unexpected = model.load_state_dict(load_file(path), strict=False)
    state = model.state_dict()
    loaded = {state[key].data_ptr() for key in state if key not in missing}
    lost = [key for key in missing if state[key].data_ptr() not in loaded]
    if lost or unexpected:
        raise ConfigError(f"{path} is of another model (missing {lost[:3]}, unexpected {unexpected[:3]}): delete it")


class _Meter:
    """Means over the micro-batches of all processes since the last flush."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.started = time.perf_counter()

    def add(self, terms: Terms, *, tokens: Tensor) -> None:
        """Waits for nothing: the values stay on the device."""
        counts = {_PASSES: torch.ones_like(tokens), _TOKENS: tokens}
        for key, value in ({key: term.detach().float() for key, term in terms.items()} | counts).items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()

    def flush(self, step: int) -> dict[str, Any]:
        processes.add_up(self.sums.values())
        elapsed = time.perf_counter() - self.started
        passes, tokens = float(self.sums.pop(_PASSES)), int(self.sums.pop(_TOKENS))
        entry = {
            "step": step,
            "terms": {key: float(value) / passes for key, value in self.sums.items()},
            "tokens": tokens,
            "tokens_per_second": round(tokens / elapsed, 1),
        }
        self.reset()
        return entry


def _log(folder: Path, entry: Mapping[str, Any]) -> None:
    if not processes.is_main():
        return
    with (folder / "log.jsonl").open("a") as stream:
        stream.write(json.dumps({"time": round(time.time(), 1), **entry}) + "\n")


@contextmanager
def _progress(name: str, steps: int, done: int, *, enabled: bool) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, disable=not enabled) as progress:
        task = progress.add_task(name, total=steps, completed=done, state="")

        def report(step: int, entry: Mapping[str, Any]) -> None:
            state = "  ".join(f"{key} {value:.4f}" for key, value in entry["terms"].items())
            progress.update(task, completed=step, state=f"{state}  {entry['tokens_per_second']:.0f} tokens/s")

        yield report
