"""How a small encoder starts: with local attention and quiet branches, so that MLM leaves its plateau at once.

The plateau of masked-language modelling is the time it takes attention to find neighbours by position. Here it is given
them: position embeddings are sinusoids in dimensions of their own, and some heads of the first layers look at fixed
distances (the idea of mimetic initialisation, Trockman & Kolter 2023, applied to offsets). Words start as the singular
vectors of their co-occurrence. `docs/design.md` has the measurements.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import XLMRobertaForMaskedLM

SLOWEST, FASTEST = 0.02, 3.0  # sinusoids, in radians a token
OFFSETS = ((-1, 1, -2, 2), (-1, 1, -3, 3))  # of the local heads, layer by layer
PEAK = 20.0  # the attention score at a local head's offset, in nats
BRANCH = 0.35  # residual branches, relative to a unit-gain layer


def position_dimensions(hidden_size: int) -> int:
    """How many dimensions of the embedding are the positions' own, an even number; words have the rest."""
    return max(2, hidden_size // 12 * 2)


@torch.no_grad()
def initialize(model: XLMRobertaForMaskedLM, words: np.ndarray | None = None) -> None:
    """Set every weight of a fresh model, and freeze its position embeddings: longer texts than seen stay legible.

    `words`: (vocabulary, hidden size less the positions' dimensions), rows of mean square one, or zero where the
    model's random row shall stay. Other matrices get 1 / sqrt(fan in): at small widths, a standard deviation of 0.02
    leaves every branch near zero.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.lm_head.decoder:
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    own = position_dimensions(model.config.hidden_size)
    scale = model.config.initializer_range
    encoder: Any = model.roberta
    embeddings = encoder.embeddings
    table = embeddings.word_embeddings.weight
    table[:, :own] = 0.0
    if words is not None:
        rows = torch.from_numpy(words)
        seen = rows.abs().sum(dim=1) > 0
        table[seen, own:] = rows[seen] * scale
    embeddings.token_type_embeddings.weight.zero_()
    places = embeddings.position_embeddings.weight
    places.zero_()
    places[:, :own] = _sinusoids(len(places), own) * scale
    places.requires_grad_(False)
    loudness = 1.0  # of the positions in the stream, which every layer norm turns down
    for index, layer in enumerate(encoder.encoder.layer):
        for branch in (layer.attention.output.dense, layer.output.dense):
            branch.weight[:own] = 0.0
            branch.weight.mul_(BRANCH)
        if index < len(OFFSETS):
            _make_local(layer.attention.self, OFFSETS[index], own, loudness)
        loudness /= 1.0 + BRANCH**2


def _frequencies(dimensions: int) -> Tensor:
    return torch.from_numpy(np.geomspace(FASTEST, SLOWEST, dimensions // 2)).float()


def _sinusoids(count: int, dimensions: int) -> Tensor:
    """Shape: (count, dimensions), cosine and sine of each frequency in turn, of mean square one."""
    angles = torch.arange(count)[:, None] * _frequencies(dimensions)
    return torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1) * math.sqrt(2.0)


def _make_local(attention: Any, offsets: tuple[int, ...], own: int, loudness: float) -> None:
    """Let head h of a self-attention look `offsets[h]` tokens ahead: its query is its position, turned by as many."""
    query, key = attention.query.weight, attention.key.weight
    width = attention.attention_head_size
    pairs = min(width, own) // 2
    gain = math.sqrt(PEAK * math.sqrt(width) / (2 * pairs)) / loudness
    for head, offset in enumerate(offsets[: attention.num_attention_heads]):
        rows = slice(head * width, (head + 1) * width)
        query[rows], key[rows] = 0.0, 0.0
        for pair, angle in enumerate((_frequencies(own)[:pairs] * offset).tolist()):
            place = slice(2 * pair, 2 * pair + 2)
            turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            query[rows][place, place] = gain * turn
            key[rows][place, place] = gain * torch.eye(2)
