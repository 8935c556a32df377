"""Long texts: windows change nothing that a wide enough model would have said, wherever the text starts."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.predictor import Predictor, codec
from app.rows import Tensors
from app.tasks.dependency_parsing import SentenceItem
from app.tasks.question_answering import QuestionItem
from app.tasks.sequence_classification import PairItem
from app.tasks.token_classification import TokenItem
from tests.app import tiny

REACH = 2
UNWINDOWED = 4096
TABLE = np.random.default_rng(7).normal(size=(512, 8))
EXAMPLES = settings(max_examples=25)

words = st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=90)
lengths = st.sampled_from([24, 32, 47, 64])
strides = st.integers(min_value=2 * REACH + 2, max_value=11)


def local(inputs: Tensors) -> Any:
    """What a piece and its neighbours within ``REACH`` say of it. Shape: (rows, length, 8)."""
    mask = np.asarray(inputs["attention_mask"], dtype=np.float64)[:, :, np.newaxis]
    values = TABLE[np.asarray(inputs["input_ids"], dtype=np.int64)] * mask
    padded = np.pad(values, ((0, 0), (REACH, REACH), (0, 0)))
    n = values.shape[1]
    return sum(np.roll(padded[:, place : place + n], place, axis=-1) for place in range(2 * REACH + 1))


def outputs(task: str, inputs: Tensors) -> Tensors:
    said = local(inputs)
    if task == "dp":
        near = np.abs(np.subtract.outer(np.arange(said.shape[1]), np.arange(said.shape[1])))
        scores = said[:, :, :4] @ TABLE[np.asarray(inputs["input_ids"], dtype=np.int64)][:, :, :4].swapaxes(1, 2)
        arcs = np.where(near <= REACH, scores, -50.0)
        arcs[:, :, 0] = said[:, :, 4] - 8
        return {
            "arc_scores": arcs,
            "relation_dependents": said[:, :, :5, np.newaxis],
            "relation_heads": np.ones((*said.shape[:2], 1)),
        }
    if task == "qa":
        return {"start_logits": said[:, :, 0] * 3, "end_logits": said[:, :, 1] * 3}
    if task == "nli":
        mask = np.asarray(inputs["attention_mask"], dtype=np.float64)[:, :, np.newaxis]
        return {"logits": (said * mask).sum(axis=1)[:, :3] / mask.sum(axis=1)}
    return {"logits": said[:, :, :5]}


def predict(task: str, item: Any, *, max_length: int, stride: int = 8) -> Any:
    manifest = tiny.manifest(task, family="bert", max_length=max_length, stride=stride)
    engine = tiny.FakeEngine(lambda inputs: outputs(task, inputs))
    (found,) = Predictor(codec(manifest), tiny.bert(), engine, pad_id=0).predict([item])
    return found


@EXAMPLES
@given(said=words, max_length=lengths, stride=strides)
def test_windows_say_of_every_word_what_one_row_would(said: list[str], max_length: int, stride: int) -> None:
    item = TokenItem(" ".join(said))
    whole = predict("ner", item, max_length=UNWINDOWED)
    found = predict("ner", item, max_length=max_length, stride=stride)
    np.testing.assert_allclose(found.probabilities, whole.probabilities)
    assert [tag.label for tag in found.words] == [tag.label for tag in whole.words]


@EXAMPLES
@given(said=words, max_length=lengths, n_before=st.integers(min_value=REACH, max_value=70))
def test_tags_do_not_depend_on_where_the_text_starts(said: list[str], max_length: int, n_before: int) -> None:
    def core(n: int) -> list[tuple[str, Any]]:
        tags = predict("ner", TokenItem(" ".join(["gida"] * n + said)), max_length=max_length).words[n:]
        return [(tag.label, pytest.approx(tag.score)) for tag in tags]

    assert core(n_before) == core(REACH)


@EXAMPLES
@given(said=words, max_length=lengths, stride=strides)
def test_a_long_sentence_is_the_tree_that_one_row_would_be(said: list[str], max_length: int, stride: int) -> None:
    item = SentenceItem(" ".join(said))
    whole = predict("dp", item, max_length=UNWINDOWED)
    found = predict("dp", item, max_length=max_length, stride=stride)
    assert [(word.head, word.relation) for word in found.words] == [(word.head, word.relation) for word in whole.words]


@EXAMPLES
@given(said=words, n_before=st.integers(min_value=0, max_value=40))
def test_trees_do_not_depend_on_the_sentences_before(said: list[str], n_before: int) -> None:
    text = " ".join(["Bola", *said])
    alone = predict("dp", SentenceItem(text), max_length=32)
    found = predict("dp", SentenceItem("Ina gida. " * n_before + text), max_length=32)
    n = 3 * n_before
    assert [(max(word.head - n, 0), word.relation) for word in found.words[n:]] == [
        (word.head, word.relation) for word in alone.words
    ]


@EXAMPLES
@given(before=words, after=words, max_length=lengths)
def test_the_best_answer_does_not_depend_on_what_surrounds_it(
    before: list[str], after: list[str], max_length: int
) -> None:
    def best(context: str) -> tuple[str, int]:
        manifest = tiny.manifest("qa", family="bert", max_length=max_length, stride=8)
        task = Predictor(codec(manifest), tiny.bert(), tiny.FakeEngine(peak), pad_id=0)
        (answer,) = task.predict([QuestionItem("Ina?", context)])[0].answers
        return answer.text, answer.start

    named = [word if word not in ("Kano", "Abuja") else "gida" for word in [*before, "Kano", "da", "Abuja", *after]]
    named[len(before)], named[len(before) + 2] = "Kano", "Abuja"
    assert best(" ".join(named)) == ("Kano da Abuja", sum(len(word) + 1 for word in named[: len(before)]))


def peak(inputs: Tensors) -> Tensors:
    """An answer begins at Kano and ends at Abuja, surely, and nowhere else."""
    ids = np.asarray(inputs["input_ids"], dtype=np.int64)
    tokenizer = tiny.bert()
    found = {name: 12.0 * (ids == tokenizer.token_to_id(word)) for name, word in (("start", "Kano"), ("end", "Abuja"))}
    for values in found.values():
        values[:, 0] += 6
    return {f"{name}_logits": values for name, values in found.items()}


@pytest.mark.parametrize("task", ["ner", "nli", "qa", "dp"])
@EXAMPLES
@given(said=st.lists(st.sampled_from(tiny.WORDS), min_size=1, max_size=24))
def test_what_fits_one_window_is_answered_as_without_windows(task: str, said: list[str]) -> None:
    text = " ".join(said)
    item = {"ner": TokenItem(text), "nli": PairItem(text, "Kano"), "dp": SentenceItem(text)}.get(task)
    item = item or QuestionItem("Ina?", text, top_k=5)
    assert repr(predict(task, item, max_length=32, stride=1)) == repr(predict(task, item, max_length=UNWINDOWED))


def test_a_long_premise_is_the_mean_of_its_windows() -> None:
    text = " ".join(tiny.WORDS * 8)
    manifest = tiny.manifest("nli", family="bert", max_length=32, stride=8)
    rows = codec(manifest).encode(PairItem(text, "Kano"), tiny.bert())
    each = [outputs("nli", {"input_ids": row.ids[None], "attention_mask": np.ones((1, len(row)))}) for row in rows]
    means = np.mean([said["logits"][0] for said in each], axis=0)
    assert len(rows) > 3
    assert list(predict("nli", PairItem(text, "Kano"), max_length=32).logits.values()) == pytest.approx(means.tolist())
