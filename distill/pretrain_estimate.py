"""`pretrain --dry-run`: what is left of a pretraining, from a step of its model and a sample of its text."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast

from distill import processes
from distill.corpus import is_packed, lines
from distill.estimate import Cost
from distill.measurements import read, text_bytes
from distill.observation import masked_loss
from distill.pretrain import (
    HELDOUT_BLOCKS,
    Pretraining,
    Start,
    dressed,
    keep_part,
    new_model,
    train_tokenizer,
)
from distill.speed import Model, fastest
from distill.teacher import load_tokenizer, resolve
from distill.training import is_half, optimizers

NOTE = """An estimate: a step of the model and the tokenizer were timed here, just now, on a sample of the text; other
work makes it longer. Unpacking text and the co-occurrences that embeddings start from are not in it. Memory and disk
are what a part needs at its peak; in all, what stays and the most that one part adds for a while. Until a teacher to
start from has been cut, its whole vocabulary is counted."""
_SAMPLE_BYTES = 500_000
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of this machine: a micro-batch forwards, the same there and back, the optimiser's step."""

    forward: float
    both: float
    update: float


StepClock = Callable[[PreTrainedModel, Pretraining], StepTime]


def time_step(model: PreTrainedModel, run: Pretraining) -> StepTime:
    """Train `model` on made-up tokens, the better of two steps after a warm-up."""
    processes.place(model)
    ids = torch.randint(5, model.config.vocab_size, (run.batch_size, run.sequence_length), device=processes.device())
    labels = ids.where(torch.rand(ids.shape, device=ids.device) < run.mask_share, -100)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    chosen = optimizers(model, run.schedule, masked=False)

    def there() -> torch.Tensor:
        with torch.autocast(processes.device().type, dtype=torch.bfloat16, enabled=is_half(run.schedule)):
            return masked_loss(model, batch)

    def update() -> None:
        for optimizer in chosen:
            optimizer.step()

    with torch.no_grad():
        forward = fastest(there)
    return StepTime(forward=forward, both=fastest(lambda: there().float().backward()), update=fastest(update))


def remaining(run: Pretraining, *, work: Path, clock: StepClock = time_step) -> list[Cost]:
    """The parts of a pretraining in their order, each with what is left of it. Nothing is written."""
    resident = psutil.Process().memory_info().rss
    begun = _from_nothing(run, work) if run.start is None else _from_teacher(run, run.start, work)
    model, text = begun.model, read(begun.tokenizer.backend_tokenizer, run.text, run.languages)
    shape = Model(config=model.config, parameters=model.num_parameters())
    learnt = _FLOAT_BYTES * sum(value.numel() for value in model.parameters() if value.requires_grad)
    logits = round(run.mask_share * run.batch_size * run.sequence_length) * model.config.vocab_size * _FLOAT_BYTES
    schedule, took = run.schedule, clock(model, run)
    left = schedule.steps - _step(work)
    passes = len(run.languages) * -(-HELDOUT_BLOCKS // run.batch_size)
    return [
        Cost(
            name="tokenizer" if run.start is None else "trim",
            seconds=begun.seconds,
            memory=resident + begun.memory,
            disk=begun.disk,
            is_done=begun.is_done,
        ),
        Cost(
            name="pack",
            seconds=text.seconds,
            memory=resident,
            disk=round(_FLOAT_BYTES * text.tokens),
            is_done=begun.is_done and _is_packed(run, begun.tokenizer, work),
        ),
        Cost(
            name="train",
            seconds=left * (schedule.accumulate * took.both + took.update),
            memory=resident
            + shape.bytes
            + 3 * learnt
            + shape.activations(run.batch_size, run.sequence_length)
            + 3 * logits,
            disk=shape.bytes + 2 * learnt,
            scratch=shape.bytes + 2 * learnt,
            is_done=left <= 0,
        ),
        Cost(
            name="held-out loss",
            seconds=passes * took.forward,
            memory=resident + shape.bytes,
            disk=shape.bytes // 2,
            is_done=left <= 0 and (run.out / "pretrain.json").is_file(),
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """What training begins with, or something of its shape, and what it takes to get there."""

    tokenizer: PreTrainedTokenizerFast
    model: PreTrainedModel
    seconds: float
    memory: int
    disk: int
    is_done: bool


def _from_nothing(run: Pretraining, work: Path) -> _Begun:
    path = work / "tokenizer.json"
    is_done, took = path.is_file(), 0.0
    if is_done:
        trained = Tokenizer.from_file(str(path))
    else:
        sample = [text for language in run.languages for text in _beginning(run, language)]
        n_bytes = sum(len(text.encode()) for text in sample)
        whole = min(run.tokenizer_megabytes * 1e6, sum(text_bytes(run.text, language) for language in run.languages))
        began = time.perf_counter()
        trained = train_tokenizer(sample, vocabulary=run.vocabulary)
        took = (time.perf_counter() - began) * whole / n_bytes
    tokenizer = dressed(trained, run)
    pieces = len(tokenizer) if is_done else run.vocabulary
    return _Begun(
        tokenizer=tokenizer,
        model=new_model(run.architecture, tokenizer, pieces=pieces),
        seconds=took,
        memory=0,
        disk=0,
        is_done=is_done,
    )


def _from_teacher(run: Pretraining, start: Start, work: Path) -> _Begun:
    is_done = (work / "start").is_dir()
    folder = work / "start" if is_done else resolve(start.model)
    tokenizer = load_tokenizer(folder)
    model = AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    n_bytes = _FLOAT_BYTES * model.num_parameters()
    keep_part(model, start)
    return _Begun(
        tokenizer=tokenizer,
        model=model,
        seconds=read(tokenizer.backend_tokenizer, run.text, run.languages).seconds,
        memory=2 * n_bytes,
        disk=n_bytes,
        is_done=is_done,
    )


def _beginning(run: Pretraining, language: str) -> Iterator[str]:
    """The language's first lines, as much of them as its part of the sample."""
    left = _SAMPLE_BYTES / len(run.languages)
    for text in lines(run.text, language):
        yield text
        left -= len(text.encode())
        if left < 0:
            return


def _is_packed(run: Pretraining, tokenizer: PreTrainedTokenizerFast, work: Path) -> bool:
    how = partial(is_packed, run.text, tokenizer=tokenizer.backend_tokenizer, length=run.sequence_length)
    return all(how(language=name, heldout=run.heldout, out=work / "packed" / name) for name in run.languages)


def _step(work: Path) -> int:
    """The optimiser steps that a checkpoint has behind it."""
    path = work / "checkpoint" / "run.json"
    return int(json.loads(path.read_text())["step"]) if path.is_file() else 0
