"""`pack`: weights that lie on 4-bit grids in under a third of half precision's bytes, every value kept.

Models that come out of a 4-bit file (`unpack`) hold, in each block of 32, a scale times a whole number from -8 to 7. A
packed folder has `packed.safetensors` in place of `model.safetensors`; `distill.teacher` reads either.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from app.errors import DataError

WEIGHTS = "packed.safetensors"
BLOCK = 32
_PLAIN = "model.safetensors"
_SCALES, _QUANTS = ".scales", ".quants"


def pack(source: Path, out: Path) -> Path:
    """Write the model folder `source` to `out` with its weights packed, in one rename; the rest is copied.

    Raises DataError where `source` has no `model.safetensors` in half precision, `out` exists or cannot be written.
    """
    tensors = _read(source / _PLAIN)
    if any(tensor.dtype != torch.float16 for tensor in tensors.values()):
        raise DataError(f"{source / _PLAIN} is not in half precision, which alone is packed without loss")
    if out.exists():
        raise DataError(f"{out} exists: name a folder that does not")
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = quantise(tensor)
        packed |= {name: tensor} if parts is None else {name + _SCALES: parts[0], name + _QUANTS: parts[1]}
    staged = out.with_name(f"{out.name}.tmp")
    try:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.copytree(source, staged, ignore=shutil.ignore_patterns(_PLAIN))
        save_file(packed, staged / WEIGHTS, metadata={"format": "pt"})
        staged.rename(out)
    except (OSError, SafetensorError) as error:
        raise DataError(f"the packed model cannot be written: {error}") from error
    return out


def weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a packed folder by name, float16, equal to those that were packed. Raises DataError."""
    stored = _read(folder / WEIGHTS)
    found = {name: tensor for name, tensor in stored.items() if not name.endswith((_SCALES, _QUANTS))}
    for name, scales in stored.items():
        if name.endswith(_SCALES):
            whole = name.removesuffix(_SCALES)
            found[whole] = dequantise(scales, stored[whole + _QUANTS])
    return found


def digest(folder: Path) -> str:
    """The sha256 of the `model.safetensors` that was packed, so that packing leaves a model's identity as it is."""
    return hashlib.sha256(save(weights(folder), metadata={"format": "pt"})).hexdigest()


def quantise(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """A matrix as scales and 4-bit numbers, two a byte; None where a value would change or it is not made of blocks.

    Shapes: (n, 32 b) float16 -> (n, b) float16, (n, 16 b) uint8. The largest weight of a block is -8 times its scale.
    """
    if tensor.dim() != 2 or tensor.shape[1] % BLOCK:
        return None
    blocks = tensor.reshape(-1, BLOCK)
    largest = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
    scales = largest / -8 + 0.0  # no negative zero
    safe = torch.where(scales == 0, torch.ones_like(scales), scales).float()
    numbers = (blocks.float() / safe).round().clamp(-8, 7).add(8).to(torch.uint8)
    quants = numbers[:, ::2] | numbers[:, 1::2] << 4
    parts = scales.reshape(len(tensor), -1), quants.reshape(len(tensor), -1)
    return parts if torch.equal(dequantise(*parts).view(torch.int16), tensor.view(torch.int16)) else None


def dequantise(scales: Tensor, quants: Tensor) -> Tensor:
    """The matrix of `quantise`'s parts. Shapes: (n, b) float16, (n, 16 b) uint8 -> (n, 32 b) float16."""
    numbers = torch.stack([quants & 15, quants >> 4], dim=-1).reshape(-1, BLOCK).float() - 8
    return (numbers * scales.reshape(-1, 1).float()).half().reshape(len(scales), -1)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        found: Mapping[str, Tensor] = load_file(path)
        return found
    except (OSError, SafetensorError) as error:
        raise DataError(f"the weights {path} cannot be read: {error}") from error
