"""LT-SFT (Ansell et al. 2022): a full phase finds which parameters matter, a sparse phase trains those alone."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from app.errors import ConfigError
from distill.delta import SparseDelta
from distill.training import Batch, Schedule, Terms, Trained, train


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """A finished sparse fine-tuning: the model in place, the delta, and both phases' figures."""

    delta: SparseDelta
    full: Trained
    sparse: Trained


def sparse_fine_tune(
    model: PreTrainedModel,
    loss: Callable[[Batch], Terms],
    batches: Callable[[int], Batch],
    *,
    full: Schedule,
    sparse: Schedule,
    density: float,
    freeze_layer_norm: bool,
    folder: Path,
    score: Callable[[], float] | None,
) -> Sparse:
    """Full phase, mask of the largest changes, rewind, sparse phase. The head trains densely in both.

    Resumes in whichever phase it was killed: the mask and the starting weights are files in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if freeze_layer_norm:
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name:
                parameter.requires_grad_(False)
    start = folder / "start.safetensors"
    if not start.is_file():
        _save(start, {name: value.detach().contiguous() for name, value in model.named_parameters()})
    before = load_file(start)
    names = maskable(model)
    mask_file = folder / "mask.safetensors"
    if not mask_file.is_file():
        _restore(model, before)
        trained = train(model, loss, batches, schedule=full, folder=folder / "full", name="phase 2, full", score=score)
        mask = find_mask(before, {name: value.detach() for name, value in model.named_parameters()}, names, density)
        (folder / "full.json").write_text(json.dumps(vars(trained)))
        _save(mask_file, mask)
    mask = load_file(mask_file)
    _restore(model, before)
    trained = train(
        model,
        loss,
        batches,
        schedule=sparse,
        folder=folder / "sparse",
        name="phase 2, sparse",
        score=score,
        mask=mask,
    )
    after = {name: value.detach() for name, value in model.named_parameters()}
    delta = SparseDelta.between(before, after, mask=mask)
    return Sparse(delta=delta, full=Trained(**json.loads((folder / "full.json").read_text())), sparse=trained)


def maskable(model: PreTrainedModel) -> list[str]:
    """Names of the base model's trainable parameters, embeddings included, the head excluded."""
    prefix = f"{model.base_model_prefix}."
    return [name for name, value in model.named_parameters() if value.requires_grad and name.startswith(prefix)]


def find_mask(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: list[str], density: float
) -> dict[str, Tensor]:
    """True at exactly int(density * entries) places: those of the largest |after - before| over all tensors together.

    Among equal changes the first in the order of `names` win. One flat copy of the changes is made.
    """
    if not 0.0 < density <= 1.0:
        raise ConfigError(f"density = {density}: choose a share above 0 and at most 1")
    sizes = [before[name].numel() for name in names]
    changes = torch.cat([(after[name].cpu() - before[name].cpu()).abs().flatten() for name in names])
    k = int(density * len(changes))
    if k == 0:
        raise ConfigError(f"density = {density} keeps none of {len(changes)} parameters")
    threshold = changes.kthvalue(len(changes) - k + 1).values
    chosen = changes > threshold
    ties = (changes == threshold).nonzero().squeeze(1)
    chosen[ties[: k - int(chosen.sum())]] = True
    return {
        name: part.reshape(before[name].shape).clone() for name, part in zip(names, chosen.split(sizes), strict=True)
    }


def _restore(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    fresh = path.with_suffix(".tmp")
    save_file(dict(tensors), fresh)
    fresh.replace(path)
