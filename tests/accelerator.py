"""An accelerator without hardware: its tensors compute on the CPU and, as a GPU's, do not mix with those of the CPU.

torch can have one accelerator a process, so what uses it runs in a process of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_COPIES = ("aten::_to_copy", "aten::copy_")
_VALUES = ("aten::_local_scalar_dense", "aten::equal", "aten::masked_select", "aten::nonzero")


class Held(Tensor):
    """A tensor on the accelerator; its values are in `held`, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Held":
        made: Held = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("pretend:0"),
        )
        made.held = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(operator, args, kwargs or {})

    def data_ptr(self) -> int:
        """What tells tied tensors."""
        return self.held.data_ptr()


class Accelerator(TorchDispatchMode):
    """While it is on, tensors can be moved to the accelerator and made there.

    `exchanges` has the operators that took something from one side to the other, which a GPU's graph cannot record.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.exchanges: list[str] = []

    def __torch_dispatch__(self, operator: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if exchanges(operator, args, kwargs or {}):
            self.exchanges.append(operator._schema.name)
        return run(operator, args, kwargs or {})


def exchanges(operator: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether it copies between CPU and accelerator, or needs to know values that are there."""
    sides = {isinstance(leaf, Held) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
    if operator._schema.name in _COPIES:
        told = kwargs.get("device")
        return len(sides | ({torch.device(told).type == "pretend"} if told is not None else set())) > 1
    return operator._schema.name in _VALUES and True in sides


def run(operator: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """The operator's result where its inputs are, or where it is told to be. Raises RuntimeError where they differ.

    As with CUDA, numbers and the places in an indexed tensor may be the CPU's, and copies go between both.
    """
    name, leaves = operator._schema.name, tree_leaves((args, kwargs))
    here = any(isinstance(leaf, Held) for leaf in leaves)
    foreign = any(isinstance(leaf, Tensor) and not isinstance(leaf, Held) and leaf.dim() for leaf in leaves)
    indexed = name.startswith("aten::index") and isinstance(args[0], Held)
    if here and foreign and name not in _COPIES and not indexed:
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}")
    told = kwargs.get("device")
    if told is not None:
        here = torch.device(told).type == "pretend"
    if told is not None and here:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    found = operator(*tree_map(values, args), **tree_map(values, kwargs))
    if operator._schema.is_mutable:
        same = [leaf for leaf in leaves if isinstance(leaf, Held) and leaf.held is found]
        return same[0] if same else found
    return tree_map(held, found) if here else found


def values(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, Held) else leaf


def held(leaf: Any) -> Any:
    return Held(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, Held) else leaf


def begin() -> None:
    """Tell torch of the accelerator, and to move parameters there as the same objects, as it does to a GPU."""
    _setup_privateuseone_for_python_backend("pretend")
    torch.__future__.set_swap_module_params_on_conversion(True)
