"""What a student costs beside its teacher: parameters, bytes, encoder FLOPs, and time under one engine."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from app.engines.onnx import Engine
from app.errors import InputTooLong
from app.rows import Tensors, pad
from distill import datasets, stage
from distill.benchmark import compare
from distill.evaluate import open_tokenizer
from distill.export import export_onnx
from distill.inputs import EVALUATED
from distill.recipe import Build
from distill.tasks.base import Example, TrainingTask, training_task
from distill.teach import open_model, thin

FLOP_LENGTH = 128
TIMED_ITEMS = 24


def measure(build: Build, task: str) -> dict[str, Any]:
    """Teacher and student of a task in fp32, timed in turns on the target's test texts: `<task>/efficiency`.

    `flops` are those of one row of 128 tokens through the encoder, a multiplication and an addition counted as two.
    """
    made = {who: stage.report(build.folder / task / where, command=where) for who, where in EVALUATED.items()}
    training, tuning = training_task(task), build.tuning(task)

    def work(folder: Path) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for who, where in EVALUATED.items():
            source = build.folder / task / where / "model"
            model = open_model(source, training, dropout=0.0, attn_implementation="eager", seed=0).eval()
            export_onnx(model, folder / f"{who}.onnx")
            found[who] = {
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "bytes": (folder / f"{who}.onnx").stat().st_size,
                "flops": encoder_flops(model, length=FLOP_LENGTH),
            }
        examples = thin(datasets.read(task, build.data, build.tgt, "test").examples, TIMED_ITEMS)
        batches = rows_alone(
            training,
            examples,
            source,
            max_length=tuning.max_length,
            stride=tuning.stride,
            pad_id=int(model.config.pad_token_id),
        )
        engines = [Engine.open(folder, file=f"{who}.onnx") for who in EVALUATED]
        found["speed"] = compare(engines[0], engines[1], batches, rounds=build.export.rounds)
        for engine, who in zip(engines, EVALUATED, strict=True):
            engine.close()
            stage.discard(folder, f"{who}.onnx")
        return found

    inputs = {who: report["fingerprint"] for who, report in made.items()} | {"rounds": build.export.rounds}
    return stage.run(build.folder / task / "efficiency", inputs, work, pool=build.pool)


def encoder_flops(model: PreTrainedModel, *, length: int) -> int:
    """FLOPs of the matrix products of one row of `length` tokens through the encoder, the head left out."""
    ids = torch.full((1, length), int(model.config.pad_token_id))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cast(PreTrainedModel, model.base_model)(input_ids=ids, attention_mask=torch.ones_like(ids))
    return int(counter.get_total_flops())


def rows_alone(
    task: TrainingTask,
    examples: Sequence[Example],
    tokenizer_folder: Path,
    *,
    max_length: int,
    stride: int,
    pad_id: int,
) -> list[Tensors]:
    """The first row of each example as a micro-batch of its own, as a single request makes it.

    What is too long for the model is left out, as a request with it would be refused.
    """
    codec = task.codec_for(max_length=max_length, stride=stride, pad_id=pad_id)
    tokenizer = open_tokenizer(tokenizer_folder)
    rows = []
    for example in examples:
        with suppress(InputTooLong):
            rows += codec.encode(example.item, tokenizer)[:1]
    return [{**pad([row], pad_id=pad_id)} for row in rows]
