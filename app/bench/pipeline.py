"""transformers' pipeline, which the servers that this one is compared with answer with."""

from typing import Any

import torch
from transformers import pipeline


def open_pipeline(folder: str, threads: int) -> Any:
    """Entities of a text or of several, in float32 on the CPU."""
    torch.set_num_threads(threads)
    return pipeline("token-classification", model=folder, aggregation_strategy="simple", device="cpu")


def plain(found: Any) -> Any:
    """The pipeline's answer with numbers that JSON can hold."""
    if isinstance(found, list):
        return [plain(part) for part in found]
    return {key: float(value) if key == "score" else value for key, value in found.items()}
