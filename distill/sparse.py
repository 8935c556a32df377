"""LT-SFT (Ansell et al. 2022): a full phase finds which parameters matter, a sparse phase trains those alone."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.errors import ConfigError
from distill import processes
from distill.delta import SparseDelta, parameters
from distill.training import Batch, Schedule, Terms, Trained, train

_MODEL = "model"  # among the learners; the others are named by `beside`


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """A finished sparse fine-tuning: the model in place, the delta, and both phases' figures.

    `full` is None at density 1, where there is nothing to find. `intermediate` are the figures of what came before,
    if anything did.
    """

    delta: SparseDelta
    full: Trained | None
    sparse: Trained
    intermediate: Trained | None = None

    @property
    def figures(self) -> dict[str, Any]:
        """The phases' figures and the number of entries changed, for a stage's report."""
        phases = {"intermediate": self.intermediate, "full": self.full, "sparse": self.sparse}
        told = {name: asdict(trained) if trained is not None else None for name, trained in phases.items()}
        return {**told, "changed": self.delta.n_entries}


def sparse_fine_tune(
    model: PreTrainedModel,
    loss: Callable[[Batch], Terms],
    batches: Callable[[int], Batch],
    *,
    full: Schedule,
    sparse: Schedule,
    density: float,
    folder: Path,
    score: Callable[[], float] | None,
    name: str,
    beside: nn.ModuleDict | None = None,
) -> Sparse:
    """Full phase, mask of the largest changes, rewind, sparse phase. The head trains densely in both.

    So do the modules `beside` the model, which are rewound too. Resumes in whichever phase it was killed: the mask and
    the starting weights are files in `folder`. `name` is what progress and errors call the whole.
    """
    learners = nn.ModuleDict({_MODEL: model, **(beside or {})})
    start = folder / "start.safetensors"
    if processes.is_main() and not start.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _save(start, {name: value.detach().contiguous() for name, value in _named(learners).items()})
    processes.wait()
    mask = _mask(learners, loss, batches, full=full, density=density, folder=folder, score=score, name=name)
    _restore(learners, load_file(start))
    trained = train(
        learners,
        loss,
        batches,
        schedule=sparse,
        folder=folder / "sparse",
        name=f"{name}, sparse",
        score=score,
        mask={f"{_MODEL}.{name}": kept for name, kept in mask.items()} if density < 1.0 else None,
    )
    before = _of_model(load_file(start))
    after = {name: value.detach().cpu() for name, value in parameters(model).items()}
    delta = SparseDelta.between(before, after, mask=mask)
    report = folder / "full.json"
    found = Trained(**json.loads(report.read_text())) if report.is_file() else None
    return Sparse(delta=delta, full=found, sparse=trained)


def _mask(
    learners: nn.ModuleDict,
    loss: Callable[[Batch], Terms],
    batches: Callable[[int], Batch],
    *,
    full: Schedule,
    density: float,
    folder: Path,
    score: Callable[[], float] | None,
    name: str,
) -> dict[str, Tensor]:
    """The full phase and what it finds; at density 1 everything, at once. On the CPU, wherever the model is."""
    model = cast(PreTrainedModel, learners[_MODEL])
    names, file = maskable(model), folder / "mask.safetensors"
    if density == 1.0:
        return whole(model)
    if processes.decide(lambda: not file.is_file()):
        start = load_file(folder / "start.safetensors")
        _restore(learners, start)
        trained = train(
            learners, loss, batches, schedule=full, folder=folder / "full", name=f"{name}, full", score=score
        )
        if processes.is_main():
            mask = find_mask(_of_model(start), parameters(model), names, density)
            (folder / "full.json").write_text(json.dumps(vars(trained)))
            _save(file, mask)
        processes.wait()
    return load_file(file)


def maskable(model: PreTrainedModel) -> list[str]:
    """Names of the base model's trainable parameters, embeddings included, the head and its pooler excluded."""
    prefix, pooler = f"{model.base_model_prefix}.", f"{model.base_model_prefix}.pooler."
    trained = [name for name, value in parameters(model).items() if value.requires_grad]
    return [name for name in trained if name.startswith(prefix) and not name.startswith(pooler)]


def whole(model: PreTrainedModel) -> dict[str, Tensor]:
    """The mask that keeps every maskable entry; on the CPU, as those of `find_mask` are."""
    return {name: torch.ones(model.get_parameter(name).shape, dtype=torch.bool) for name in maskable(model)}


def find_mask(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], names: list[str], density: float
) -> dict[str, Tensor]:
    """True at exactly int(density * entries) places: those of the largest |after - before| over all tensors together.

    Among equal changes the first in the order of `names` win. Needs one flat copy of the parameters, the mask itself
    and one tensor's changes: less than two copies in all.
    """
    if not 0.0 < density <= 1.0:
        raise ConfigError(f"density = {density}: choose a share above 0 and at most 1")
    total = sum(before[name].numel() for name in names)
    k = int(density * total)
    if k == 0:
        raise ConfigError(f"density = {density} keeps none of {total} parameters")
    flat = np.empty(total, dtype=np.float32)
    at = 0
    for name in names:
        size = before[name].numel()
        flat[at : at + size] = _change(before[name], after[name])
        at += size
    flat.partition(total - k)
    threshold = float(flat[total - k])
    ties = k - int((flat[total - k :] > threshold).sum())
    del flat
    mask = {}
    for name in names:
        change = _change(before[name], after[name])
        chosen = change > threshold
        equal = (change == threshold).nonzero()[0][:ties]
        chosen[equal] = True
        ties -= len(equal)
        mask[name] = torch.from_numpy(chosen).reshape(before[name].shape)
    return mask


def _change(before: Tensor, after: Tensor) -> np.ndarray:
    change: np.ndarray = torch.sub(after.detach().cpu(), before.detach().cpu()).abs_().flatten().numpy()
    return change


def _of_model(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{_MODEL}."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _named(learners: nn.ModuleDict) -> dict[str, nn.Parameter]:
    prefix, model = f"{_MODEL}.", cast(PreTrainedModel, learners[_MODEL])
    beside = {name: value for name, value in learners.named_parameters() if not name.startswith(prefix)}
    return {f"{prefix}{name}": value for name, value in parameters(model).items()} | beside


def _restore(learners: nn.ModuleDict, weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _named(learners).items():
            parameter.copy_(weights[name])


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    fresh = path.with_suffix(".tmp")
    save_file(dict(tensors), fresh)
    fresh.replace(path)
