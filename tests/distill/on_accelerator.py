"""Run as a module with a folder, it takes every stage of some builds to the accelerator, and to the CPU.

So with a pretraining. Phase 1 is stopped once on the accelerator. The folder gets how the models of both differ.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel

from distill import build as building
from distill import config as configuration
from distill import recipe
from distill.pretrain import Pretraining, pretrain
from distill.training import _Run
from tests.accelerator import Accelerator, begin, held, values
from tests.distill import corpora
from tests.distill.test_methods import SMALL
from tests.distill.tiny import tiny_teacher

BUILDS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("xlm-roberta", "best", "ner", {}),
    ("xlm-roberta", "ctcd", "pos", {}),
    ("xlm-roberta", "bistil-adapted", "pos", {}),
    ("xlm-roberta", "best-narrow", "dp", {"student": {"layer_reduction_factor": 2}}),
    ("bert", "tinybert", "nli", {}),
    ("deberta-v2", "best", "qa", {}),
)
_SHORT = {"sequence_length": 32, "batch_size": 4, "heldout": 0.2, "heldout_batches": 1}
_FULL = {"precision": "fp32", "max_length": 64, "stride": 16}
_SETTINGS: tuple[dict[str, Any], ...] = (
    {"phase1": {"schedule": {"precision": "fp32", "checkpoint_every": 1}}},
    {"adapt": {"schedule": {"steps": 2, "precision": "fp32"}, **_SHORT}},
    {"teach": {task: _FULL for task in ("default", "nli", "qa", "dp")}},
    {"transfer": {task: {"tuning": _FULL} for task in ("default", "nli", "qa", "dp")}},
)


@contextmanager
def pretended() -> Iterator[None]:
    """distill's device is the accelerator. Files hold values, as they do of a GPU's tensors, and all is float32."""

    def valued(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            return write(tree_map(values, tensors), *args, **kwargs)

        return written

    saved, load = PreTrainedModel.save_pretrained, torch.load

    def save_pretrained(self: PreTrainedModel, folder: Path, **kwargs: Any) -> None:
        saved(self, folder, state_dict=tree_map(values, dict(self.state_dict())), **kwargs)

    def loaded(path: Path, *, map_location: torch.device, **kwargs: Any) -> Any:
        return tree_map(held, load(path, **kwargs)) if map_location.type == "pretend" else load(path, **kwargs)

    with ExitStack() as stack:
        for target, stand_in in (
            ("distill.processes.device", lambda: torch.device("pretend:0")),
            ("torch.autocast", lambda *_args, **_kwargs: nullcontext()),
            ("torch.inference_mode", torch.no_grad),
            ("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: ["pretend"]),
            ("torch.save", valued(torch.save)),
            ("torch.load", loaded),
            ("transformers.PreTrainedModel.save_pretrained", save_pretrained),
            *(
                (f"distill.{module}.save_file", valued(save_file))
                for module in ("training", "sparse", "delta", "bilingual")
            ),
        ):
            stack.enter_context(patch(target, stand_in))
        stack.enter_context(Accelerator())
        yield


def build(
    folder: Path, family: str, method: str, task: str, how: Mapping[str, Any], *, out: Path, stop: bool
) -> dict[str, Tensor]:
    """Every stage up to the scores; the student's weights. To `stop` is to begin phase 1 again at its checkpoint."""
    places = {"teacher": str(folder / family), "data": folder / "data", "out": out, "pool": out / "pool"}
    given = {"method": method, "tasks": [task], "adapted": method == "bistil-adapted", **places}
    chosen = recipe.read("quick", [SMALL, *_SETTINGS, given, how])
    shared = (building.trim, *([building.adapt] if chosen.adapted else []), building.student, building.phase1)
    for stage in shared:
        if stop and stage is building.phase1:
            with patch("distill.training._Run.save", _stopping(_Run.save)), suppress(KeyboardInterrupt):
                stage(chosen)
            assert (chosen.folder / "distill" / "checkpoint").is_dir()
        stage(chosen)
    for of_task in (building.task_teacher, building.task_student, building.evaluation):
        of_task(chosen, task)
    return load_file(chosen.folder / task / "transfer" / "model" / "model.safetensors")


def pretrained(folder: Path, *, out: Path, like: Path | None = None) -> dict[str, Tensor]:
    """A small multilingual model's weights; `like`: where one was trained whose tokenizer it has."""
    shape = {"layers": 2, "hidden_size": 16, "heads": 2, "intermediate_size": 32, "positions": 64}
    schedule = {"steps": 4, "learning_rate": 3e-3, "optimizer": "muon", "precision": "fp32", "evaluate_every": 2}
    text = {"text": [folder / "data" / "text"], "languages": ["en", "ha"], "vocabulary": 120, "heldout": 0.1}
    size = {"sequence_length": 24, "batch_size": 8, "architecture": shape, "schedule": schedule}
    if like is not None:
        (out / "work").mkdir(parents=True)
        for name in ("inputs.json", "tokenizer.json"):
            shutil.copy(like / "work" / name, out / "work" / name)
    run = configuration.read(Pretraining, [{"out": out / "model", **text, **size}])
    return load_file(pretrain(run, work=out / "work") / "model.safetensors")


def _stopping(save: Callable[..., None]) -> Callable[..., None]:
    def saved(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        raise KeyboardInterrupt

    return saved


def farthest(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float:
    """The largest difference of any weight."""
    return max(float((some[key] - others[key]).abs().max()) for key in others)


def main(folder: Path) -> None:
    """The largest difference between the models of both, by build, in `folder/differences.json`."""
    begin()
    corpora.write(folder / "data")
    differences = {}
    for family, method, task, how in BUILDS:
        if not (folder / family).is_dir():
            torch.manual_seed(0)
            tiny_teacher(family, folder / family)
        name = f"{family} {method} {task}"
        with pretended():
            there = build(folder, family, method, task, how, out=folder / name / "accelerator", stop=True)
        here = build(folder, family, method, task, how, out=folder / name / "cpu", stop=False)
        differences[name] = farthest(there, here)
    with pretended():
        there = pretrained(folder, out=folder / "pretrained")
    differences["pretrain"] = farthest(there, pretrained(folder, out=folder / "again", like=folder / "pretrained"))
    (folder / "differences.json").write_text(json.dumps(differences))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
