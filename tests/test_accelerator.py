"""The accelerator that only pretends is as strict as a GPU."""

import subprocess
import sys

MIXED = """
import torch
from tests.accelerator import Accelerator, begin
begin()
with Accelerator() as on:
    there = torch.arange(3.0).to("pretend")
    print((there * 2 + 1).cpu().tolist(), there[torch.tensor([2])].cpu().tolist())
    for operation in (lambda: there + torch.ones(3), lambda: torch.ones(3)[there.nonzero()], there.numpy):
        try:
            operation()
        except RuntimeError as error:
            print(type(error).__name__)
    del on.exchanges[:]
    (there + 1).sum(), there.to("pretend"), torch.ones(2).to("cpu"), torch.ones(2).sum().item()
    print(on.exchanges)
    there.sum().item(), there.nonzero(), there.cpu(), torch.ones(()).to("pretend")
    print(on.exchanges)
"""
VALUES = "['aten::_local_scalar_dense', 'aten::nonzero', 'aten::_to_copy', 'aten::_to_copy']"


def test_the_accelerator_computes_and_does_not_mix_with_the_cpu() -> None:
    done = subprocess.run([sys.executable, "-c", MIXED], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[1.0, 3.0, 5.0] [2.0]", *3 * ["RuntimeError"], "[]", VALUES], done.stderr
