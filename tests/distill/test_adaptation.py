"""Language SFTs: learnt or imported, cut to a trimmed vocabulary, and carried by the teacher for each batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from app.errors import ConfigError, DataError
from distill import adaptation, recipe, vocabulary
from distill import build as building
from distill.adaptation import Adaptation, adapted, per_language, published
from distill.bilingual import look
from distill.corpus import Blocks, Masking, MonolingualBatches, pack
from distill.delta import SparseDelta, parameters
from distill.distillation import Distillation
from distill.objectives.base import Sum
from distill.observation import masked_loss
from distill.sparse import maskable
from distill.student import create
from distill.tasks.base import training_task
from distill.teach import open_model
from distill.teacher import load_teacher, load_tokenizer
from distill.training import Schedule
from tests.distill import corpora
from tests.distill.tiny import ENGLISH, FAMILIES, HAUSA, tiny_teacher

EMBEDDING = "roberta.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher("xlm-roberta", tmp_path_factory.mktemp("teacher"))


def embedding(model: PreTrainedModel) -> torch.Tensor:
    """The matrix of the pieces. Shape: (vocabulary, d)."""
    return cast(torch.Tensor, model.get_input_embeddings().weight)


def change(model: PreTrainedModel, *, seed: int, names: tuple[str, ...] = ("word_embeddings", "value")) -> SparseDelta:
    """A random delta of a few tensors."""
    generator = torch.Generator().manual_seed(seed)
    sparse = {}
    for name, value in parameters(model).items():
        if name.startswith("roberta.") and any(f"{part}.weight" in name for part in names):
            indices = torch.randperm(value.numel(), generator=generator)[: value.numel() // 3].sort().values
            sparse[name] = (indices, torch.randn(len(indices), generator=generator))
    return SparseDelta(sparse=sparse, dense={})


def encode(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = cast(Any, model.base_model)(input_ids=ids).last_hidden_state
    return states


def test_an_adapted_teacher_shares_what_its_language_leaves_alone(teacher: Path) -> None:
    model, _ = load_teacher(teacher)
    before = {name: value.detach().clone() for name, value in parameters(model).items()}
    delta = change(model, seed=0)
    assert EMBEDDING in delta.sparse
    twin = adapted(model, delta)
    own, theirs = parameters(model), parameters(twin)
    for name, value in own.items():
        assert torch.equal(value, before[name])
        assert (value is theirs[name]) == (name not in delta.sparse)
    static, _ = load_teacher(teacher)
    delta.apply(static)
    ids = torch.arange(5, 25).reshape(2, 10)
    assert torch.equal(encode(twin, ids), encode(static, ids)) and not torch.equal(
        encode(twin, ids), encode(model, ids)
    )


def test_phase_1_asks_the_teacher_that_carries_the_batch_s_language(teacher: Path, tmp_path: Path) -> None:
    model, tokenizer = load_teacher(teacher, attn_implementation="eager")
    sfts = {language: change(model, seed=seed) for seed, language in enumerate(("en", "ha"))}
    for language, texts in (("en", ENGLISH), ("ha", HAUSA)):
        (tmp_path / f"{language}.txt").write_text("\n".join(texts * 8))
        backend = tokenizer.backend_tokenizer
        pack([tmp_path], language, backend, length=16, heldout=0.2, out=tmp_path / language)
    batches = MonolingualBatches(
        [Blocks.open(tmp_path / language, language, "train") for language in sfts],
        [1.0, 1.0],
        batch_size=2,
        seed=0,
        mask=None,
    )
    objective = Sum.of({"hidden_states": 1.0})
    student = create(model, layer_reduction_factor=2)

    def against(teachers: Sequence[PreTrainedModel]) -> Distillation:
        return Distillation(student=student, teachers=teachers, objective=objective, layers=(1, 3), look=look)

    loss = against(per_language(model, sfts))
    statics = {}
    for language, delta in sfts.items():
        static, _ = load_teacher(teacher, attn_implementation="eager")
        delta.apply(static)
        statics[language] = against([static])
    for index in range(6):
        with torch.no_grad():
            found = {name: statics[name](batches(index))["hidden_states"] for name in sfts}
            mine = loss(batches(index))["hidden_states"]
        assert torch.equal(mine, found[batches.language(index)])
        assert not torch.equal(found["en"], found["ha"])


def test_a_trimmed_delta_changes_a_trimmed_model_as_the_whole_one_the_whole(teacher: Path) -> None:
    kept = np.array([0, 1, 2, 3, 4, *range(9, 120, 3)])
    model, _ = load_teacher(teacher)
    delta = change(model, seed=3)
    whole, _ = load_teacher(teacher)
    delta.apply(whole)
    vocabulary.slice_embeddings(whole, kept)
    vocabulary.slice_embeddings(model, kept)
    cut = delta.trimmed(kept, embedding=EMBEDDING, width=model.config.hidden_size)
    cut.apply(model)
    assert 0 < len(cut.sparse[EMBEDDING][0]) < len(delta.sparse[EMBEDDING][0])
    for (name, one), other in zip(model.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_a_published_sft_is_cut_to_the_trimmed_teacher(teacher: Path, tmp_path: Path) -> None:
    model, _ = load_teacher(teacher)
    kept = np.array([i for i in range(model.config.vocab_size) if i < 30 or i % 2])
    vocabulary.trim(teacher, kept, tmp_path / "trimmed")
    rows = torch.zeros_like(embedding(model))
    rows[31, 2], rows[32, 5], rows[4, 0] = 1.0, 2.0, 3.0
    flat = np.sort(np.array([31 + 2 * len(rows), 32 + 5 * len(rows), 4]))
    values = torch.tensor([3.0, 1.0, 2.0])
    entry = {"size": rows.size(), "index_steps": [flat[0], *np.diff(flat).tolist()], "values": values}
    head = {"lm_head.bias": torch.zeros(len(rows))}
    torch.save({"diffs": {EMBEDDING: entry}, "abs": head}, tmp_path / "pytorch_diff.bin")
    delta = published(tmp_path, tmp_path / "trimmed")
    trimmed, _ = load_teacher(tmp_path / "trimmed")
    before = embedding(trimmed).detach().clone()
    delta.apply(trimmed)
    assert torch.allclose(embedding(trimmed) - before, rows[torch.from_numpy(kept)]) and not delta.dense

    torch.save({"diffs": {"bert.embeddings.x": entry}, "abs": {}}, tmp_path / "pytorch_diff.bin")
    with pytest.raises(DataError, match="changes nothing"):
        published(tmp_path, tmp_path / "trimmed")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_learnt_sft_has_its_density_leaves_norms_and_head_alone_and_lowers_the_loss(
    tmp_path: Path, family: str
) -> None:
    folder = tiny_teacher(family, tmp_path / "teacher")
    (tmp_path / "ha.txt").write_text("\n".join(HAUSA * 12))
    how = Adaptation(
        schedule=Schedule(steps=12, learning_rate=2e-3, evaluate_every=6, precision="fp32"),
        density=0.05,
        sequence_length=16,
        batch_size=4,
        heldout=0.2,
        heldout_batches=2,
    )
    learnt = adaptation.learn(folder, "ha", adaptation=how, text=[tmp_path], folder=tmp_path / "work")
    model, tokenizer = load_teacher(folder)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("LayerNorm" not in name)
    sizes = {name: parameters(model)[name].numel() for name in maskable(model)}
    assert learnt.delta.n_entries == int(0.05 * sum(sizes.values())) and not learnt.delta.dense
    assert set(learnt.delta.sparse) <= set(sizes)
    assert len(learnt.delta.sparse[f"{model.base_model_prefix}.embeddings.word_embeddings.weight"][0])
    assert set(learnt.sparse.terms) == {"mlm", "l1"}
    batch = Masking.of(tokenizer, share=0.15)(torch.tensor(tokenizer(list(HAUSA), padding=True)["input_ids"]), seed=0)
    losses = []
    for twin in (model, adapted(model, learnt.delta)):
        with torch.no_grad():
            losses.append(float(masked_loss(twin, batch)))
            whole = twin(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
            assert losses[-1] == pytest.approx(float(whole.loss), rel=1e-4)
    assert losses[1] < losses[0]


def test_swapping_takes_one_language_off_and_puts_the_other_on(teacher: Path) -> None:
    model, _ = load_teacher(teacher)
    one, other = change(model, seed=1), change(model, seed=2)
    expected = adapted(model, other)
    carried = adapted(model, one)
    adaptation.swap(carried, one, other)
    for (name, value), wanted in zip(carried.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(value, wanted, atol=1e-5), name


@pytest.mark.slow
def test_an_adapted_build_s_teachers_carry_the_sfts(teacher: Path, tmp_path: Path) -> None:
    corpora.write(tmp_path / "data", sentences=30)
    small = {
        "tgt": "ha",
        "method": "bistil-adapted",
        "teacher": str(teacher),
        "tasks": "pos",
        "data": str(tmp_path / "data"),
        "out": str(tmp_path / "runs"),
        "adapt": {"schedule": {"steps": 4}, "sequence_length": 32, "batch_size": 4, "heldout": 0.2},
        "phase1": {"schedule": {"steps": 4}, "sequence_length": 32, "batch_size": 4, "heldout": 0.2},
        "teach": {"default": {"epochs": 0.5, "max_length": 64, "learning_rate": 1e-6}},
    }
    build = recipe.read("compare", [small])
    building.trim(build)
    with pytest.raises(ConfigError, match="distill adapt"):
        building.task_teacher(build, "pos")
    building.adapt(build)
    building.student(build)
    building.phase1(build)
    building.task_teacher(build, "pos")
    source = build.folder / "trim" / "model"
    trimmed, _ = load_teacher(source)
    sft = SparseDelta.load(build.folder / "adapt-en" / building.SFT)
    tuned, _ = (adapted(trimmed, sft), load_tokenizer(source))
    taught = open_model(
        build.folder / "pos" / "teach" / "model",
        training_task("pos"),
        dropout=0.0,
        attn_implementation="sdpa",
        seed=0,
    )
    with torch.no_grad():
        far, near = (
            sum(float((one - other).abs().sum()) for one, other in zip(encoder(taught), encoder(model), strict=True))
            for model in (trimmed, tuned)
        )
    assert near < far / 2


def encoder(model: PreTrainedModel) -> list[torch.Tensor]:
    return [value for name, value in model.named_parameters() if name.startswith("roberta.encoder")]


def test_a_build_of_one_language_opens_its_adapted_teacher_as_it_is(teacher: Path, tmp_path: Path) -> None:
    corpora.write(tmp_path / "data", sentences=30)
    short = {"sequence_length": 32, "batch_size": 4, "heldout": 0.2, "heldout_batches": 1}
    tuning = {"default": {"epochs": 0.1, "max_length": 64}}
    places = {"teacher": str(teacher), "data": str(tmp_path / "data"), "out": str(tmp_path / "runs")}
    adapt = {"adapt": {"schedule": {"steps": 2}, **short}, "tasks": "pos", "method": "bistil-adapted"}
    build = recipe.read("compare", [{"src": "ha", "tgt": "ha", **adapt, **places, "teach": tuning}])
    building.trim(build)
    building.adapt(build)
    building.task_teacher(build, "pos")
    source = build.folder / "pos" / "teach" / "model"
    tuned = open_model(source, training_task("pos"), dropout=0.0, attn_implementation="sdpa", seed=0)
    opened = building.opened_teacher(build, "pos", attn_implementation="sdpa")
    assert all(torch.equal(value, opened.state_dict()[name]) for name, value in tuned.state_dict().items())
