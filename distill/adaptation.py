"""Language SFTs: what a language changes in the teacher, learnt by LT-SFT on masked language modelling or published."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from app.errors import DataError
from distill import composable_sft, processes, vocabulary
from distill.corpus import Batch, Blocks, Masking, MonolingualBatches, pack
from distill.delta import SparseDelta, parameters
from distill.observation import masked_loss
from distill.sparse import Sparse, maskable, sparse_fine_tune
from distill.student import freeze
from distill.teacher import load_teacher
from distill.training import Schedule

UNSAID = "no [adapt] table says how language SFTs are learnt: take a preset that has one, or add it"


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """LT-SFT of a language (Ansell et al. 2022): both phases have the same schedule, layer norms stay.

    `l1` weighs the mean distance from the teacher's weights. `files`: for these languages a published fine-tuning, a
    composable-sft file or folder, takes the place of a learnt one.
    """

    schedule: Schedule
    density: float = 0.08
    l1: float = 0.1
    sequence_length: int = 256
    batch_size: int = 8
    mask_share: float = 0.15
    heldout: float = 0.01
    heldout_batches: int = 8
    files: dict[str, Path] = field(default_factory=dict)


def learn(model_folder: Path, language: str, *, adaptation: Adaptation, text: Sequence[Path], folder: Path) -> Sparse:
    """Learn the language's SFT of the masked language model in `model_folder`; resumes in `folder`."""
    model, tokenizer = load_teacher(model_folder, attn_implementation="sdpa")
    processes.place(model)
    packed = folder / "packed"
    with processes.main_first():
        pack(
            text,
            language,
            tokenizer.backend_tokenizer,
            length=adaptation.sequence_length,
            heldout=adaptation.heldout,
            out=packed,
        )
    freeze(model, ["layer_norm"])
    named = parameters(model)
    start = {name: named[name].detach().clone() for name in maskable(model)}
    n_entries = sum(value.numel() for value in start.values())

    def batches(split: str) -> MonolingualBatches:
        return MonolingualBatches(
            [Blocks.open(packed, language, split)],
            [1.0],
            batch_size=adaptation.batch_size,
            seed=adaptation.schedule.seed,
            mask=Masking.of(tokenizer, share=adaptation.mask_share),
        )

    def loss(batch: Batch) -> dict[str, Tensor]:
        terms = {"mlm": masked_loss(model, batch)}
        if adaptation.l1:
            moved = torch.stack([(named[name] - value).abs().sum() for name, value in start.items()])
            terms["l1"] = adaptation.l1 * moved.sum() / n_entries
        return terms

    heldout = batches("heldout")

    def score() -> float:
        count = adaptation.heldout_batches
        return -sum(float(masked_loss(model, heldout(index))) for index in range(count)) / count

    result = sparse_fine_tune(
        model,
        loss,
        batches("train"),
        full=adaptation.schedule,
        sparse=adaptation.schedule,
        density=adaptation.density,
        folder=folder,
        score=score,
        name=f"adapt {language}",
    )
    return Sparse(delta=of_encoder(result.delta, model), full=result.full, sparse=result.sparse)


def published(path: Path, model_folder: Path) -> SparseDelta:
    """A published SFT, cut to the vocabulary of the trimmed teacher in `model_folder`.

    Raises DataError for a file that cannot be read, and for one of another model.
    """
    model, _ = load_teacher(model_folder)
    embedding = next(name for name, value in parameters(model).items() if value is model.get_input_embeddings().weight)
    whole = composable_sft.read(path)
    cut = whole.trimmed(vocabulary.load_kept(model_folder), embedding=embedding, width=model.config.hidden_size)
    delta = of_encoder(cut, model)
    if not delta.n_entries:
        raise DataError(f"{path} changes nothing of the {model.config.model_type} in {model_folder}")
    delta.apply(model)
    return delta


def of_encoder(delta: SparseDelta, model: PreTrainedModel) -> SparseDelta:
    """What a language SFT changes in the encoder: the language-model head's part is not for other heads."""
    prefix = f"{model.base_model_prefix}."
    return SparseDelta(
        sparse={name: entry for name, entry in delta.sparse.items() if name.startswith(prefix)}, dense={}
    )


def adapted(model: PreTrainedModel, delta: SparseDelta) -> PreTrainedModel:
    """A copy of the model with the delta in its weights; tensors that it does not change are the model's own."""
    changed = {name for name, (indices, _) in delta.sparse.items() if len(indices)} | set(delta.dense)
    own = [value for name, value in parameters(model).items() if name not in changed]
    twin = copy.deepcopy(model, {id(value): value for value in (*own, *model.buffers())})
    delta.apply(twin)
    return twin


def per_language(model: PreTrainedModel, sfts: Mapping[str, SparseDelta]) -> list[PreTrainedModel]:
    """The teacher as each of the languages sees it, in their order; the model alone where there are no SFTs."""
    return [adapted(model, delta) for delta in sfts.values()] or [model]


def swap(model: PreTrainedModel, out: SparseDelta, into: SparseDelta) -> None:
    """Take one language's SFT off a model and put another's on, in place (LT-SFT's zero-shot transfer)."""
    out.revert(model, dense={})
    into.apply(model)
