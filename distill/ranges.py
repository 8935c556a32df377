"""What the numbers of a configuration must be."""

from collections.abc import Callable, Mapping
from typing import Any

Range = tuple[str, Callable[[float], bool]]

_AT_LEAST_0: Range = ("at least 0", lambda value: value >= 0)
_AT_LEAST_1: Range = ("at least 1", lambda value: value >= 1)
_AT_LEAST_2: Range = ("at least 2", lambda value: value >= 2)
_AT_LEAST_3: Range = ("at least 3", lambda value: value >= 3)
_ABOVE_0: Range = ("more than 0", lambda value: value > 0)
_BELOW_1: Range = ("at least 0 and below 1", lambda value: 0 <= value < 1)
_UP_TO_1: Range = ("at least 0 and at most 1", lambda value: 0 <= value <= 1)
_SOME: Range = ("more than 0 and at most 1", lambda value: 0 < value <= 1)

RANGES: Mapping[str, Range] = {
    "accumulate": _AT_LEAST_1,
    "alpha": _UP_TO_1,
    "batch_size": _AT_LEAST_1,
    "calibration_texts": _AT_LEAST_1,
    "checkpoint_every": _AT_LEAST_1,
    "clip_norm": _ABOVE_0,
    "decay_share": _SOME,
    "density": _SOME,
    "dropout": _BELOW_1,
    "epochs": _ABOVE_0,
    "evaluate_every": _AT_LEAST_0,
    "evaluations": _AT_LEAST_1,
    "full_epochs": _AT_LEAST_0,
    "heads": _AT_LEAST_0,
    "head_rate": _ABOVE_0,
    "heldout": _BELOW_1,
    "heldout_batches": _AT_LEAST_1,
    "hidden_size": _AT_LEAST_1,
    "hidden_size_reduction_factor": _AT_LEAST_1,
    "l1": _AT_LEAST_0,
    "layer_reduction_factor": _AT_LEAST_1,
    "learning_rate": _AT_LEAST_0,
    "length": _AT_LEAST_0,
    "log_every": _AT_LEAST_1,
    "mask_share": _SOME,
    "max_dev": _AT_LEAST_0,
    "max_examples": _AT_LEAST_0,
    "max_length": _AT_LEAST_3,  # a piece between two special tokens
    "rounds": _AT_LEAST_1,
    "samples": _AT_LEAST_2,
    "sequence_length": _AT_LEAST_1,
    "sparse_epochs": _ABOVE_0,
    "steps": _AT_LEAST_1,
    "stride": _AT_LEAST_0,
    "temperature": _ABOVE_0,
    "test_examples": _AT_LEAST_0,
    "threshold": _BELOW_1,
    "unlabelled_share": _BELOW_1,
    "warmup_share": _UP_TO_1,
    "warmup_steps": _AT_LEAST_0,
    "weight_decay": _AT_LEAST_0,
}
"""By a number's name, in whichever table it is."""


def misfits(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every number of the nested mapping that no stage could work with, by its full name."""
    found: list[str] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += misfits(value, f"{prefix}{key}.")
        elif key in RANGES and isinstance(value, int | float) and not RANGES[key][1](value):
            found.append(f"{prefix}{key} = {value}: expected {RANGES[key][0]}")
    return found
