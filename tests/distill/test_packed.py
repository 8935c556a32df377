import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import DataError
from distill import inputs, packed
from distill.__main__ import main
from distill.teacher import load_teacher
from distill.unpack import dequantise
from tests.distill import tiny


def on_a_grid(shape: torch.Size) -> torch.Tensor:
    """Weights as a 4-bit file has them: of each 32 the largest is -8 times the scale."""
    numbers = torch.randint(-7, 8, (shape.numel() // 32, 32))
    numbers[:, 5] = -8
    scales = (torch.randn(len(numbers), 1) / 100).half()
    return (numbers * scales.float()).half().reshape(shape)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A teacher in half precision whose matrices of whole blocks lie on 4-bit grids."""
    folder = tiny.tiny_teacher("xlm-roberta", tmp_path / "teacher", layers=2)
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and tensor.shape[1] % 32 == 0 and "position" not in name:
            tensors[name] = on_a_grid(tensor.shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_packed_teacher_is_the_same_model_in_fewer_bytes(teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    assert main(["pack", str(teacher), "--out", str(out)]) == 0
    assert not (out / "model.safetensors").exists()
    assert (out / packed.WEIGHTS).stat().st_size < (teacher / "model.safetensors").stat().st_size
    (plain, _), (again, tokenizer) = load_teacher(teacher), load_teacher(out)
    assert again.dtype == torch.float32 and not again.training and tokenizer.mask_token == "<mask>"
    known = plain.state_dict()
    assert known.keys() == again.state_dict().keys()
    assert all(torch.equal(known[name], tensor) for name, tensor in again.state_dict().items())


def test_packing_keeps_the_identity_of_a_model(teacher: Path, tmp_path: Path) -> None:
    out = packed.pack(teacher, tmp_path / "packed")
    assert packed.digest(out) == hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest()
    assert inputs.identity(out) == inputs.identity(teacher)


def test_what_lies_on_no_grid_is_kept_as_it_is() -> None:
    assert packed.quantise(torch.randn(4, 64).half()) is None
    assert packed.quantise(on_a_grid(torch.Size((4, 64)))[:, :33]) is None
    assert packed.quantise(on_a_grid(torch.Size((64,)))) is None


def test_blocks_of_nothing_are_packed() -> None:
    parts = packed.quantise(torch.zeros(2, 64).half())
    assert parts is not None and torch.equal(packed.dequantise(*parts), torch.zeros(2, 64).half())


def test_its_grid_is_that_of_the_files_that_unpack_reads() -> None:
    scale = torch.tensor([0.25]).half().view(torch.uint8)
    halves = torch.arange(16, dtype=torch.uint8)  # low halves 0..15, so weights 0.25 (q - 8), then zeros' -2
    weights = torch.from_numpy(dequantise(torch.cat([scale, halves]).numpy())).half().reshape(1, 32)
    assert weights[0, :16].tolist() == [0.25 * (q - 8) for q in range(16)]
    parts = packed.quantise(weights)
    assert parts is not None and parts[0].tolist() == [[0.25]] and torch.equal(packed.dequantise(*parts), weights)


def test_what_cannot_be_packed_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name a folder that does not"):
        packed.pack(teacher, teacher)
    single = tiny.tiny_teacher("xlm-roberta", tmp_path / "single", layers=1)
    with pytest.raises(DataError, match="not in half precision"):
        packed.pack(single, tmp_path / "never")
    with pytest.raises(DataError, match="cannot be read"):
        packed.pack(tmp_path / "nowhere", tmp_path / "never")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        packed.pack(teacher, tmp_path / "file" / "packed")
    assert not (tmp_path / "never").exists()


def test_cut_off_packed_weights_are_an_error(teacher: Path, tmp_path: Path) -> None:
    out = packed.pack(teacher, tmp_path / "packed")
    whole = (out / packed.WEIGHTS).read_bytes()
    (out / packed.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load_teacher(out)
