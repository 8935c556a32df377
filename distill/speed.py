"""How fast this machine runs one layer of an encoder, and what an encoder of a shape weighs."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedConfig

from distill import processes
from distill.teacher import attention_for
from distill.throughput import seconds

_FLOAT_BYTES = 4
_TIMED_PARAMETERS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of this machine: a token through a layer forwards, the same there and back, a parameter's update."""

    forward: float
    both: float
    update: float


@dataclass(frozen=True, kw_only=True)
class Model:
    """An encoder's shape: all that its cost depends on."""

    config: PreTrainedConfig
    parameters: int

    @classmethod
    def of(cls, config: PreTrainedConfig, **changes: int) -> "Model":
        """The masked language model of `config` with `changes`; weights are counted, not made."""
        changed = copy.deepcopy(config)
        for name, value in changes.items():
            setattr(changed, name, value)
        with torch.device("meta"):
            return cls(config=changed, parameters=AutoModelForMaskedLM.from_config(changed).num_parameters())

    @property
    def layers(self) -> int:
        """How many there are."""
        return int(self.config.num_hidden_layers)

    @property
    def bytes(self) -> int:
        """In float32."""
        return _FLOAT_BYTES * self.parameters

    def activations(self, rows: int, length: int) -> int:
        """Bytes that a forward pass keeps for the way back: s b h (34 + 5 a s / h) a layer in 16 bits, here in 32.

        Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", equation 1.
        """
        hidden, heads = int(self.config.hidden_size), int(self.config.num_attention_heads)
        return 2 * self.layers * rows * length * (34 * hidden + 5 * heads * length)


def time_layer(config: PreTrainedConfig, rows: int, length: int, half: bool) -> Speed:
    """Time one layer of this shape on a micro-batch, the better of two after a warm-up, and AdamW's step.

    The weights are float32, as in training, whatever precision the teacher's are stored in.
    """
    single = copy.deepcopy(config)
    single.num_hidden_layers, single.vocab_size = 1, min(1000, config.vocab_size)
    model: Any = AutoModel.from_config(single, dtype=torch.float32, attn_implementation=attention_for(single, "sdpa"))
    processes.place(model)
    ids = torch.full((rows, length), single.vocab_size - 1, device=processes.device())

    def there() -> torch.Tensor:
        with torch.autocast(processes.device().type, dtype=torch.bfloat16, enabled=half):
            found: torch.Tensor = model(input_ids=ids).last_hidden_state
        return found

    def back() -> None:
        there().float().square().mean().backward()

    weights = torch.zeros(_TIMED_PARAMETERS, device=processes.device(), requires_grad=True)
    weights.grad = torch.ones_like(weights)
    optimizer = torch.optim.AdamW([weights])
    with torch.no_grad():
        forward = fastest(there)
    tokens = rows * length
    return Speed(
        forward=forward / tokens, both=fastest(back) / tokens, update=fastest(optimizer.step) / _TIMED_PARAMETERS
    )


def fastest(work: Callable[[], Any]) -> float:
    """Seconds of the better of two runs after a warm-up."""
    work()
    return min(seconds(work) for _ in range(2))
