"""Reads sparse fine-tunings published by composable-sft (Ansell et al. 2022): `pytorch_diff.bin`, pickled with torch.

`diffs` holds a dict a tensor: `size`, `values`, and `index_steps`, the differences between ascending flat indices in
which the first dimension runs fastest; `abs` holds whole tensors, of heads. The first index is a NumPy scalar.
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.errors import DataError
from distill.delta import SparseDelta

FILE = "pytorch_diff.bin"


def file(path: Path) -> Path:
    """The file itself, or the one in a folder. Raises DataError where there is none."""
    found = path / FILE if path.is_dir() else path
    if not found.is_file():
        raise DataError(f"no sparse fine-tuning at {found}")
    return found


def read(path: Path) -> SparseDelta:
    """The fine-tuning in a file, or in a folder that holds one.

    Nothing that the file names is run: torch's restricted unpickler builds tensors and containers, and integers here.
    Raises DataError for a file that asks for more, or is of another layout.
    """
    path = file(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"{path} is no sparse fine-tuning that can be read safely: {error}") from error
    if not isinstance(stored, Mapping) or not {"diffs", "abs"} & stored.keys():
        raise DataError(f"{path} is no composable-sft file: it has neither diffs nor abs")
    if stored.get("block_sparses"):
        raise DataError(f"{path} holds block-sparse layers, which are not supported")
    try:
        sparse = {name: _decode(entry) for name, entry in stored.get("diffs", {}).items()}
        dense = {name: _whole(entry) for name, entry in stored.get("abs", {}).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error!r}") from error
    return SparseDelta(sparse=sparse, dense=dense)


def _decode(entry: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Ascending row-major indices and their values. Raises ValueError where they do not fit the size."""
    size = tuple(int(extent) for extent in entry["size"])
    flat = np.cumsum(np.asarray(entry["index_steps"], dtype=np.int64), dtype=np.int64)
    values: Tensor = entry["values"]
    if values.shape != flat.shape:
        raise ValueError(f"{len(flat)} indices for {tuple(values.shape)} values")
    places = np.unravel_index(flat, size, order="F")
    indices = np.asarray(np.ravel_multi_index(places, size), dtype=np.int64)
    order = np.argsort(indices, kind="stable")
    if (np.diff(indices[order]) == 0).any():
        raise ValueError("an index occurs twice")
    return torch.from_numpy(indices[order]), values[torch.from_numpy(order)].clone()


def _whole(entry: Tensor | Mapping[str, Any]) -> Tensor:
    if isinstance(entry, Tensor):
        return entry.to_dense()
    indices, values = _decode(entry)
    whole = torch.zeros(tuple(entry["size"]), dtype=values.dtype)
    whole.view(-1)[indices] = values
    return whole


def _integer(kind: Any, raw: bytes) -> int:
    """In the place of NumPy's own constructor of scalars: integers alone."""
    if not isinstance(kind, np.dtype) or kind.kind not in "iu":
        raise pickle.UnpicklingError(f"a scalar of type {kind}")
    return int(np.frombuffer(raw, dtype=kind)[0])


def _allowed() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What a file may name: NumPy's scalars, under the names of its major versions, and types of integers."""
    scalars = [(_integer, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*scalars, np.dtype, *(type(np.dtype(kind)) for kind in ("int32", "int64"))]


_ALLOWED = _allowed()
