"""Target-language text in phase 2: sampled, labelled by the teacher, mixed in at the stated share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.errors import ConfigError
from app.tasks.dependency_parsing import Dependent, TreePrediction
from app.tasks.question_answering import Answer, AnswerPrediction
from app.tasks.sequence_classification import ClassPrediction
from app.tasks.token_classification import TokenItem
from distill.evaluate import open_tokenizer, predictor_for
from distill.examples import TaskBatches
from distill.tasks.base import training_task
from distill.teach import inputs, open_model
from distill.unlabelled import Interleaved, label, sample
from tests.distill.tiny import HAUSA, tiny_teacher

LENGTHS = {"max_length": 32, "stride": 8, "pad_id": 1}


class Numbered:
    """Micro-batches that say which one they are."""

    per_epoch = 6

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __call__(self, index: int) -> dict[str, torch.Tensor]:
        return {"place": torch.tensor([self.kind, index])}


def test_the_share_is_kept_in_every_stretch_and_nothing_is_skipped() -> None:
    mixed: Any = Interleaved(Numbered(0), Numbered(1), share=0.25)  # type: ignore[arg-type]
    places = [mixed(index)["place"].tolist() for index in range(40)]
    for kind in (0, 1):
        ordinals = [ordinal for which, ordinal in places if which == kind]
        assert ordinals == list(range(len(ordinals)))
    assert all(abs(sum(kind for kind, _ in places[at : at + 8]) - 2) <= 1 for at in range(32))
    assert sum(kind for kind, _ in places) == 10 and mixed.per_epoch == 6


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_that_leaves_one_kind_out_is_an_error(share: float) -> None:
    with pytest.raises(ConfigError, match="unlabelled_share"):
        Interleaved(Numbered(0), Numbered(1), share=share)  # type: ignore[arg-type]


def test_sentences_come_from_the_whole_text(tmp_path: Path) -> None:
    lines = [f"Yara {n} suna zuwa makaranta. Ee. Manoma sun girbe gero da dawa." for n in range(100)]
    (tmp_path / "ha.txt").write_text("\n".join(lines))
    few = sample([tmp_path], "ha", 10)
    assert few == [f"Yara {n} suna zuwa makaranta." for n in range(0, 100, 10)]
    many = sample([tmp_path], "ha", 150)
    assert len(many) == 150 and "Ee." not in many
    assert many[:2] == ["Yara 0 suna zuwa makaranta.", "Manoma sun girbe gero da dawa."]


def test_lines_between_are_read_where_those_at_even_distances_have_too_few_sentences(tmp_path: Path) -> None:
    lines = [f"Yara {n} suna zuwa makaranta." if n % 2 else "Ee." for n in range(200)]
    (tmp_path / "ha.txt").write_text("\n".join(lines))
    assert sample([tmp_path], "ha", 100) == lines[1::2]
    assert sample([tmp_path], "ha", 150) == lines[1::2]


def test_a_micro_batch_is_the_same_whatever_was_asked_for_before_it(tmp_path: Path) -> None:
    folder = tiny_teacher("xlm-roberta", tmp_path)
    task, tokenizer = training_task("pos"), open_tokenizer(folder)
    teacher = open_model(folder, task, dropout=0.0, attn_implementation="eager", seed=3).eval()
    examples = label(predictor_for(teacher, tokenizer, task, **LENGTHS), task, HAUSA)

    def batches() -> TaskBatches:
        return TaskBatches.of(task, examples, tokenizer, batch_size=3, seed=0, **LENGTHS)

    used = batches()
    assert used.per_epoch == 3
    for index in (0, 7, 1, 3, 8, 0, 4):
        asked, fresh = used(index), batches()(index)
        assert all(torch.equal(asked[name], fresh[name]) for name in fresh)


def test_the_teacher_s_answers_become_the_targets(tmp_path: Path) -> None:
    folder = tiny_teacher("xlm-roberta", tmp_path)
    task = training_task("pos")
    teacher = open_model(folder, task, dropout=0.0, attn_implementation="eager", seed=3).eval()
    tokenizer = open_tokenizer(folder)
    examples = label(predictor_for(teacher, tokenizer, task, **LENGTHS), task, HAUSA)
    assert [example.item for example in examples] == [TokenItem(text) for text in HAUSA]
    batches = TaskBatches.of(task, examples, tokenizer, batch_size=3, seed=0, **LENGTHS)
    with torch.no_grad():
        for index in range(batches.per_epoch):
            batch = batches(index)
            chosen = batch["labels"] != -100
            said = teacher(**inputs(batch, teacher)).logits[chosen].argmax(dim=-1)
            assert chosen.any() and torch.equal(said, batch["labels"][chosen])


@pytest.mark.parametrize(
    ("name", "prediction"),
    [
        ("nli", ClassPrediction({"entailment": 0.2, "neutral": 0.7, "contradiction": 0.1})),
        ("qa", AnswerPrediction((Answer("Kano", 5, 9, 0.5), Answer("Daura", 20, 25, 0.1)))),
        ("dp", TreePrediction((Dependent(0, 4, 2, "nsubj", 0.5), Dependent(5, 9, 0, "root", 0.5)), ((0, 2),))),
    ],
)
def test_a_prediction_is_right_where_it_is_the_gold(name: str, prediction: Any) -> None:
    task = training_task(name)
    gold = task.as_gold(prediction)
    assert task.score([gold], [prediction])[task.main_metric] == 100.0
    assert np.array_equal(task.terms([gold], [prediction])[:, 0], task.terms([gold], [prediction])[:, 1])
