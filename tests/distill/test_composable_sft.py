"""Files as composable-sft writes them, made here; and files that try to run code."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.errors import DataError
from distill import composable_sft
from distill.delta import SparseDelta


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.arange(12.0).reshape(3, 4))
        self.bias = nn.Parameter(torch.zeros(5))
        self.head = nn.Parameter(torch.ones(2, 2))


def legacy(change: torch.Tensor) -> dict[str, Any]:
    """A tensor of differences in the published layout."""
    places = change.nonzero()
    flat = np.sort(np.asarray([sum(int(c) * m for c, m in zip(p, strides(change.shape), strict=True)) for p in places]))
    values = torch.stack([change[np.unravel_index(i, tuple(change.shape), order="F")] for i in flat])
    return {"size": change.size(), "index_steps": [flat[0], *np.diff(flat).tolist()], "values": values}


def strides(size: torch.Size) -> list[int]:
    """The first dimension runs fastest."""
    return [int(np.prod(size[:place])) for place in range(len(size))]


def test_a_published_file_changes_a_model_as_its_tensors_say(tmp_path: Path) -> None:
    matrix, bias = torch.zeros(3, 4), torch.zeros(5)
    matrix[0, 3], matrix[2, 0], matrix[1, 1] = 0.5, -1.5, 2.0
    bias[4] = 0.25
    stored: dict[str, dict[str, Any]] = {
        "diffs": {"matrix": legacy(matrix), "bias": legacy(bias)},
        "abs": {"head": torch.full((2, 2), 7.0)},
        "block_sparses": {},
    }
    assert isinstance(stored["diffs"]["matrix"]["index_steps"][0], np.integer)
    torch.save(stored, tmp_path / "pytorch_diff.bin")
    with pytest.raises(pickle.UnpicklingError, match="numpy"):
        torch.load(tmp_path / "pytorch_diff.bin", weights_only=True)

    model, before = Tiny(), Tiny()
    delta = composable_sft.read(tmp_path)
    delta.apply(model)
    assert torch.equal(model.matrix, before.matrix + matrix) and torch.equal(model.bias, before.bias + bias)
    assert torch.equal(model.head, torch.full((2, 2), 7.0))

    delta.save(tmp_path / "delta.safetensors", metadata={})
    again = Tiny()
    SparseDelta.load(tmp_path / "delta.safetensors").apply(again)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))


def test_flat_indices_may_exceed_32_bits(tmp_path: Path) -> None:
    entry = {"size": torch.Size([2**17, 2**16]), "index_steps": [np.int64(2**33 - 1)], "values": torch.ones(1)}
    torch.save({"diffs": {"large": entry}, "abs": {}}, tmp_path / "pytorch_diff.bin")
    assert composable_sft.read(tmp_path).sparse["large"][0].tolist() == [2**33 - 1]


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("place", ["top", "inside"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, place: str) -> None:
    mark = tmp_path / "ran"
    evil = Malicious(os.mkdir, str(mark))
    torch.save(evil if place == "top" else {"diffs": {"matrix": evil}, "abs": {}}, tmp_path / "pytorch_diff.bin")
    with pytest.raises(DataError, match="read safely"):
        composable_sft.read(tmp_path)
    assert not mark.exists()
    torch.load(tmp_path / "pytorch_diff.bin", weights_only=False)
    assert mark.exists(), "the file is harmless, so the test shows nothing"


def test_a_scalar_that_is_no_integer_is_refused(tmp_path: Path) -> None:
    entry = {"size": torch.Size([4]), "index_steps": [np.float64(1.0)], "values": torch.ones(1)}
    torch.save({"diffs": {"bias": entry}, "abs": {}}, tmp_path / "pytorch_diff.bin")
    with pytest.raises(DataError, match="read safely"):
        composable_sft.read(tmp_path)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"size": torch.Size([4]), "index_steps": [9], "values": torch.ones(1)}, "out of bounds"),
        ({"size": torch.Size([4]), "index_steps": [1, 1], "values": torch.ones(3)}, "2 indices"),
        ({"size": torch.Size([4]), "index_steps": [1, 0], "values": torch.ones(2)}, "twice"),
        ({"size": torch.Size([4]), "values": torch.ones(1)}, "index_steps"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_how(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    torch.save({"diffs": {"bias": entry}, "abs": {}}, tmp_path / "pytorch_diff.bin")
    with pytest.raises(DataError, match=told):
        composable_sft.read(tmp_path)


def test_other_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sparse fine-tuning at"):
        composable_sft.read(tmp_path)
    torch.save({"model": {}}, tmp_path / "pytorch_diff.bin")
    with pytest.raises(DataError, match="neither diffs nor abs"):
        composable_sft.read(tmp_path)
    (tmp_path / "pytorch_diff.bin").write_bytes(b"not a pickle")
    with pytest.raises(DataError, match="read safely"):
        composable_sft.read(tmp_path)
