import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, PreTrainedModel

from app.errors import ConfigError, DataError
from distill.delta import SparseDelta, parameters
from distill.sparse import Sparse, find_mask, maskable, sparse_fine_tune, whole
from distill.student import freeze
from distill.teacher import load_teacher
from distill.training import Batch, Schedule
from tests.distill.tiny import tiny_teacher


def make(folder: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    source = folder if (folder / "config.json").is_file() else tiny_teacher("xlm-roberta", folder, layers=2, hidden=16)
    model: PreTrainedModel = AutoModelForTokenClassification.from_pretrained(source, num_labels=3)
    return model


def batches(index: int) -> Batch:
    generator = torch.Generator().manual_seed(index)
    ids = torch.randint(5, 60, (4, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids % 3}


def tune(
    folder: Path, *, stop_at: int | None = None, frozen: Sequence[str] = (), density: float = 0.08
) -> tuple[PreTrainedModel, Sparse]:
    model = make(folder / "model")
    freeze(model, frozen)
    calls = 0

    def loss(batch: Batch) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if stop_at is not None and calls > stop_at:
            raise KeyboardInterrupt
        return {"task": model(**batch).loss}

    schedule = Schedule(steps=6, learning_rate=1e-3, checkpoint_every=2, precision="fp32")
    return model, sparse_fine_tune(
        model,
        loss,
        batches,
        full=schedule,
        sparse=schedule,
        density=density,
        folder=folder / "work",
        score=None,
        name="phase 2",
    )


def test_exactly_k_entries_change_and_the_rest_stays_bit_identical(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in make(tmp_path / "model").named_parameters()}
    model, result = tune(tmp_path)
    names = maskable(model)
    assert "classifier.weight" not in names and any("word_embeddings" in name for name in names)
    k = int(0.08 * sum(before[name].numel() for name in names))
    after = dict(model.named_parameters())
    assert result.delta.n_entries == k
    for name in names:
        changed = (after[name] != before[name]).flatten().nonzero().squeeze(1)
        assert set(changed.tolist()) <= set(result.delta.sparse[name][0].tolist())
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


@pytest.mark.parametrize("stop_at", [3, 6, 9])
def test_a_run_killed_in_either_phase_gives_the_same_delta(tmp_path: Path, stop_at: int) -> None:
    _, whole = tune(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "b", stop_at=stop_at)
    _, resumed = tune(tmp_path / "b")
    for name, (indices, values) in whole.delta.sparse.items():
        assert torch.equal(indices, resumed.delta.sparse[name][0]) and torch.equal(
            values, resumed.delta.sparse[name][1]
        )


def test_a_saved_delta_reproduces_the_logits_and_reverts(tmp_path: Path) -> None:
    model, result = tune(tmp_path)
    model.eval()
    inputs = {name: value for name, value in batches(99).items() if name != "labels"}
    result.delta.save(tmp_path / "delta.safetensors", metadata={"task": "test"})
    fresh = make(tmp_path / "model").eval()
    original = {name: value.clone() for name, value in fresh.named_parameters()}
    loaded = SparseDelta.load(tmp_path / "delta.safetensors")
    loaded.apply(fresh)
    torch.testing.assert_close(fresh(**inputs).logits, model(**inputs).logits, atol=1e-6, rtol=0)
    loaded.revert(fresh, dense=original)
    for name, value in fresh.named_parameters():
        torch.testing.assert_close(value, original[name], atol=1e-7, rtol=0)


def test_frozen_layer_norms_are_neither_masked_nor_moved(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in make(tmp_path / "model").named_parameters()}
    model, result = tune(tmp_path, frozen=["layer_norm"])
    norms = [name for name in before if "LayerNorm" in name]
    assert norms and not set(norms) & set(result.delta.sparse)
    assert all(torch.equal(dict(model.named_parameters())[name], before[name]) for name in norms)


def test_ties_are_broken_to_exactly_k() -> None:
    before = {"a": torch.zeros(3, 2), "b": torch.zeros(4)}
    after = {"a": torch.ones(3, 2), "b": torch.tensor([1.0, -5.0, 1.0, 0.0])}
    mask = find_mask(before, after, ["a", "b"], 0.3)
    assert mask["a"].tolist() == [[True, True], [False, False], [False, False]]
    assert mask["b"].tolist() == [False, True, False, False]


def test_a_density_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="density"):
        find_mask({"a": torch.zeros(3)}, {"a": torch.ones(3)}, ["a"], 0.1)
    with pytest.raises(ConfigError, match="density"):
        find_mask({"a": torch.zeros(3)}, {"a": torch.ones(3)}, ["a"], 1.5)


def test_a_delta_of_another_model_is_refused(tmp_path: Path) -> None:
    delta = SparseDelta(sparse={"nowhere": (torch.tensor([0]), torch.tensor([1.0]))}, dense={})
    with pytest.raises(DataError, match="nowhere"):
        delta.apply(make(tmp_path))


def test_embeddings_tied_to_a_language_model_head_count_among_the_maskable(tmp_path: Path) -> None:
    teacher = load_teacher(tiny_teacher("xlm-roberta", tmp_path, layers=2, hidden=16))[0]
    names = maskable(teacher)
    assert "roberta.embeddings.word_embeddings.weight" in names and not [n for n in names if n.startswith("lm_head")]
    values = list(parameters(teacher).values())
    assert sum(v.numel() for v in values) == teacher.num_parameters() and len({id(v) for v in values}) == len(values)


def test_a_density_of_one_tunes_everything_in_one_phase(tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in make(tmp_path / "model").named_parameters()}
    model, result = tune(tmp_path, density=1.0)
    assert result.full is None and not (tmp_path / "work" / "full").exists()
    assert result.delta.n_entries == sum(before[name].numel() for name in maskable(model))
    fresh = make(tmp_path / "model")
    result.delta.apply(fresh)
    inputs = {name: value for name, value in batches(99).items() if name != "labels"}
    torch.testing.assert_close(fresh.eval()(**inputs).logits, model.eval()(**inputs).logits, atol=1e-6, rtol=0)


PEAK = """
import re, torch
from pathlib import Path
from distill.sparse import find_mask
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
shapes = {f"layer.{i}": (1000, 1000) for i in range(24)}
before = {name: torch.zeros(shape) for name, shape in shapes.items()}
after = {name: torch.rand(shape) for name, shape in shapes.items()}
start = peak()
mask = find_mask(before, after, list(shapes), 0.08)
print((peak() - start) / (4 * 24e6), sum(int(kept.sum()) for kept in mask.values()))
"""


def test_the_search_for_the_mask_needs_less_than_two_copies_of_the_parameters() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    copies, kept = done.stdout.split()
    assert 0.5 < float(copies) < 2.0 and int(kept) == int(0.08 * 24_000_000)


def test_a_whole_mask_is_on_the_cpu_wherever_the_model_is(tmp_path: Path) -> None:
    model = make(tmp_path / "model")
    shapes = {name: model.get_parameter(name).shape for name in maskable(model)}
    torch.nn.Module.to(model, "meta")
    masks = whole(model)
    assert {name: mask.shape for name, mask in masks.items()} == shapes
    assert all(mask.device.type == "cpu" and mask.all() for mask in masks.values())


def test_a_pooler_that_a_head_reads_is_trained_with_it(tmp_path: Path) -> None:
    source = tiny_teacher("bert", tmp_path, layers=2, hidden=16)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(source, num_labels=3)
    assert "bert.pooler.dense.weight" in parameters(model)
    assert not [name for name in maskable(model) if "pooler" in name]
    assert {name.split(".")[1] for name in maskable(model)} == {"embeddings", "encoder"}


def test_a_tensor_that_changed_as_a_whole_takes_the_room_of_its_values(tmp_path: Path) -> None:
    model, result = tune(tmp_path, density=1.0)
    path = tmp_path / "delta.safetensors"
    result.delta.save(path, metadata={})
    assert path.stat().st_size < 4 * model.num_parameters() + 10_000
    loaded = SparseDelta.load(path)
    assert loaded.n_entries == result.delta.n_entries
    for name, (indices, values) in result.delta.sparse.items():
        assert torch.equal(loaded.sparse[name][0], indices) and torch.equal(loaded.sparse[name][1], values)
