"""SparseDelta: what a sparse fine-tuning adds to a model, as a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from app.errors import DataError


@dataclass(frozen=True, kw_only=True)
class SparseDelta:
    """`sparse`: name -> (flat int64 indices, values to add); `dense`: name -> full values, for task heads."""

    sparse: Mapping[str, tuple[Tensor, Tensor]]
    dense: Mapping[str, Tensor]

    @classmethod
    def between(
        cls, before: Mapping[str, Tensor], after: Mapping[str, Tensor], *, mask: Mapping[str, Tensor]
    ) -> "SparseDelta":
        """The masked entries' differences, and the full values of what else changed or is new; all on the CPU."""
        sparse = {}
        for name, kept in mask.items():
            indices = kept.flatten().nonzero().squeeze(1)
            difference = (after[name] - before[name]).flatten()[indices]
            sparse[name] = (indices, difference.detach().clone())
        dense = {
            name: value.detach().clone()
            for name, value in after.items()
            if name not in mask and (name not in before or not torch.equal(before[name], value))
        }
        return cls(sparse=sparse, dense=dense)

    @property
    def n_entries(self) -> int:
        """Sparse entries; dense values are not counted."""
        return sum(len(indices) for indices, _ in self.sparse.values())

    def apply(self, model: nn.Module) -> None:
        """Add the sparse values and set the dense ones, in place. Raises DataError on a name the model lacks."""
        self._add(model, sign=1.0)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, value in self.dense.items():
                _named(parameters, name, value.shape).copy_(value)

    def revert(self, model: nn.Module, *, dense: Mapping[str, Tensor]) -> None:
        """Take the sparse values off again and put back the `dense` values that were there before."""
        self._add(model, sign=-1.0)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name in self.dense:
                parameters[name].copy_(dense[name])

    def _add(self, model: nn.Module, *, sign: float) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, (indices, values) in self.sparse.items():
                parameter = _named(parameters, name, None)
                if len(indices) and int(indices[-1]) >= parameter.numel():
                    raise DataError(f"the delta changes entry {int(indices[-1])} of {name}, which is smaller")
                parameter.view(-1)[indices] += sign * values.to(parameter.dtype)

    def trimmed(self, kept: np.ndarray, *, embedding: str, width: int) -> "SparseDelta":
        """The delta for the same model cut to the vocabulary `kept`, whose ids are rows of the tensor `embedding`.

        Of that tensor, rows of `width` entries, it keeps the entries in kept rows, renumbered. Shape: kept (pieces,).
        """
        if embedding not in self.sparse:
            return self
        indices, values = self.sparse[embedding]
        rows, columns = indices // width, indices % width
        new_rows = torch.searchsorted(torch.from_numpy(kept), rows)
        here = torch.from_numpy(np.append(kept, -1))[new_rows] == rows
        cut = (new_rows[here] * width + columns[here], values[here])
        return SparseDelta(sparse={**self.sparse, embedding: cut}, dense=self.dense)

    def save(self, path: Path, *, metadata: Mapping[str, str]) -> None:
        """Write safetensors: `<name>#indices`, `<name>#values`, `<name>#dense`.

        Values that are a tensor's first ones, as are those of a tensor that changed as a whole, have no indices.
        """
        tensors = {f"{name}#dense": value.contiguous() for name, value in self.dense.items()}
        for name, (indices, values) in self.sparse.items():
            tensors[f"{name}#values"] = values.contiguous()
            if not torch.equal(indices, torch.arange(len(values))):
                tensors[f"{name}#indices"] = indices
        fresh = path.with_suffix(".tmp")
        save_file(tensors, fresh, metadata=dict(metadata))
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> "SparseDelta":
        """Raises DataError when the file is no sparse delta."""
        with safe_open(path, framework="pt") as stream:
            tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 - no mapping
        kinds = {key.rpartition("#")[2] for key in tensors}
        if not kinds <= {"indices", "values", "dense"}:
            raise DataError(f"{path} is no sparse delta: it holds {', '.join(sorted(tensors)[:3])}")
        values = {key.removesuffix("#values"): value for key, value in tensors.items() if key.endswith("#values")}
        return cls(
            sparse={name: (tensors.get(f"{name}#indices", torch.arange(len(v))), v) for name, v in values.items()},
            dense={key.removesuffix("#dense"): value for key, value in tensors.items() if key.endswith("#dense")},
        )


def _named(parameters: Mapping[str, Tensor], name: str, shape: torch.Size | None) -> Tensor:
    if name not in parameters:
        raise DataError(f"the delta changes {name}, which the model lacks")
    if shape is not None and parameters[name].shape != shape:
        raise DataError(
            f"the delta sets {name} of shape {tuple(shape)}, the model's is {tuple(parameters[name].shape)}"
        )
    return parameters[name]


def parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Every parameter once, by name; word embeddings that are tied to a head have their name in the encoder."""
    encoder = cast(PreTrainedModel, model.base_model)
    if encoder is model:
        return dict(model.named_parameters())
    inner = {f"{model.base_model_prefix}.{name}": value for name, value in encoder.named_parameters()}
    known = {id(value) for value in inner.values()}
    return inner | {name: value for name, value in model.named_parameters() if id(value) not in known}
