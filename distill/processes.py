"""One process, or the several that `accelerate launch` starts: who writes, who waits, and sums over all."""

import atexit
import fcntl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils.operations import broadcast_object_list
from torch import Tensor, nn

_PATIENCE = timedelta(days=2)
"""How long a process waits for the main one, which trims, scores and exports alone."""


@cache
def _state() -> Any:
    """accelerate's record of this process; the first call joins the others, whom it leaves when it ends.

    Without any GPU the processes are joined by gloo, which accelerate does only when told that it is to use the CPU.
    A process that ends without leaving them is at times aborted by gloo's threads, its work done.
    """
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)
    atexit.register(state.destroy_process_group)
    return state


def device() -> torch.device:
    """Where models and batches belong: a GPU where there is one."""
    found: torch.device = _state().device
    return found


def place(*modules: nn.Module) -> None:
    """Move modules to the device."""
    for module in modules:
        module.to(device())


def count() -> int:
    """How many processes there are."""
    return int(_state().num_processes)


def index() -> int:
    """This process' number, counted from 0."""
    return int(_state().process_index)


def is_main() -> bool:
    """Whether this process is the one that writes files."""
    return index() == 0


def wait() -> None:
    """Until every process is here."""
    _state().wait_for_everyone()


def decide(question: Callable[[], bool]) -> bool:
    """The main process' answer, in every process, given at one moment."""
    answer = [question() if is_main() else None]
    broadcast_object_list(answer)
    return bool(answer[0])


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block, then the others do, who find its files."""
    with _state().main_process_first():
        yield


@contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """Wait until no other command is inside a block with this lock; a killed one is inside no longer.

    Of the processes of one command the main one holds it. None is no lock.
    """
    if lock is None or not is_main():
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def add_up_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """`add_up` the gradients. A parameter that some process has no gradient of counts as zero there."""
    if count() == 1:
        return
    some = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8, device=device())
    torch.distributed.all_reduce(some, op=torch.distributed.ReduceOp.MAX)
    learnt = [parameter for parameter, found in zip(parameters, some.tolist(), strict=True) if found]
    for parameter in learnt:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    add_up(parameter.grad for parameter in learnt if parameter.grad is not None)


def add_up(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place, in one message a dtype."""
    if count() == 1:
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for group in by_type.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        torch.distributed.all_reduce(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))
