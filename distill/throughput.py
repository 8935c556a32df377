"""`throughput`: how near phase 1 comes to what this machine's matrix multiplication can do."""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from app.errors import ConfigError
from distill import processes
from distill.bilingual import Phase1, look
from distill.distillation import Distillation
from distill.objectives.base import Sum
from distill.observation import attention_to_show
from distill.student import create, layer_map
from distill.training import Batch, Schedule, is_half, train


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """A teacher's shape, the student's depth, and how much to train."""

    layers: int = 12
    layer_reduction_factor: int = 2
    hidden_size: int = 768
    heads: int = 12
    vocabulary: int = 20_000
    batch_size: int = 8
    sequence_length: int = 256
    matrix: int = 4096
    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=5, learning_rate=1e-4, log_every=1, checkpoint_every=1_000_000)
    )

    def __post_init__(self) -> None:
        """Raises ConfigError for a width that heads cannot share."""
        if self.heads == 0 or self.hidden_size % self.heads:
            raise ConfigError(f"hidden_size = {self.hidden_size} is no multiple of heads = {self.heads}")

    def flops_a_token(self) -> float:
        """Multiplications and additions of matrix products alone: the teacher forwards, the student there and back."""
        inner = 4 * self.hidden_size
        linear = 2 * (4 * self.hidden_size**2 + 2 * self.hidden_size * inner)
        attention = 2 * 2 * self.sequence_length * self.hidden_size
        return (linear + attention) * (self.layers + 3 * self.layers / self.layer_reduction_factor)


def measure(run: Throughput) -> dict[str, Any]:
    """Tokens a second of phase 1 with its default objectives, and their share of the peak, in the training precision.

    Data are random ids, so reading text is not in the figure; the loss, its gradient and the optimiser are. The peak is
    the fastest of several products of square matrices, taken before and after training. The first step, which warms
    up, is left out.
    """
    phase = Phase1(schedule=run.schedule)
    half = is_half(run.schedule)
    config = XLMRobertaConfig(
        vocab_size=run.vocabulary,
        hidden_size=run.hidden_size,
        num_hidden_layers=run.layers,
        num_attention_heads=run.heads,
        intermediate_size=4 * run.hidden_size,
        max_position_embeddings=run.sequence_length + 2,
        type_vocab_size=1,
    )
    teacher = XLMRobertaForMaskedLM(config)
    teacher.set_attn_implementation(attention_to_show(phase.needs))
    processes.place(teacher)
    student = create(teacher, layer_reduction_factor=run.layer_reduction_factor)
    student.set_attn_implementation(attention_to_show(phase.needs))
    distillation = Distillation(
        student=student,
        teachers=[teacher],
        objective=Sum.of(phase.objective),
        layers=layer_map(run.layers, run.layer_reduction_factor),
        look=look,
    )

    def batches(index: int) -> Batch:
        generator = torch.Generator().manual_seed(index)
        ids = torch.randint(5, run.vocabulary, (run.batch_size, run.sequence_length), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    dtype = torch.bfloat16 if half else torch.float32
    before = peak_flops(run.matrix, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        train(
            nn.ModuleDict({"student": student}),
            distillation,
            batches,
            schedule=run.schedule,
            folder=Path(folder),
            name="throughput",
        )
        log = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    peak = max(before, peak_flops(run.matrix, dtype=dtype))
    speed = sum(entry["tokens"] for entry in log[1:]) / sum(
        entry["tokens"] / entry["tokens_per_second"] for entry in log[1:]
    )
    reached = speed * run.flops_a_token()
    return {
        "tokens_per_second": round(speed, 1),
        "gflops": round(reached / 1e9, 1),
        "peak_gflops": round(peak / 1e9, 1),
        "share": round(reached / peak, 3),
        "precision": "bf16" if half else "fp32",
        "device": str(processes.device()),
        "threads": torch.get_num_threads(),
    }


def peak_flops(n: int, *, dtype: torch.dtype, repeats: int = 4) -> float:
    """Multiplications and additions a second of n x n matrix products, the fastest of `repeats`."""
    a, b = (torch.randn(n, n, device=processes.device()).to(dtype) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes, what it leaves to a GPU included."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
