"""What a card shows beside teacher and student: predictions from the training labels alone."""

from typing import Any

import numpy as np
import pytest

from app.tasks.dependency_parsing import SentenceItem
from app.tasks.question_answering import QuestionItem
from app.tasks.sequence_classification import PairItem
from app.tasks.token_classification import TokenItem
from distill.datasets.base import joined
from distill.evaluate import judge
from distill.tasks.base import Arc, Example, Span, training_task


def tagged(text: str, labels: str) -> Example:
    return Example(TokenItem(*joined(text.split())), tuple(labels.split()))


def parsed(text: str, arcs: str) -> Example:
    pairs = [arc.split(":") for arc in arcs.split()]
    return Example(SentenceItem(*joined(text.split())), tuple(Arc(int(head), relation) for head, relation in pairs))


def asked(context: str, *answers: str) -> Example:
    return Example(QuestionItem("?", context), tuple(Span(context.find(answer), answer) for answer in answers))


def scored(name: str, train: list[Example], test: list[Example]) -> dict[str, float]:
    task = training_task(name)
    return judge(task, test, task.baseline(train, [example.item for example in test]))


TAGGED = [
    tagged("May runs May walks May", "B-PER O B-PER O O"),
    tagged("Bank of Kano", "B-ORG I-ORG I-ORG"),
    tagged("in Kano in Kano", "O B-LOC O B-LOC"),
]


def test_a_word_has_its_most_frequent_label_and_an_unseen_one_the_most_frequent_of_all() -> None:
    # O 5 times of 12; Kano: B-LOC twice, I-ORG once; May: B-PER twice, O once; letters count as they are written
    item = TokenItem("Musa of Kano, may May")
    (prediction,) = training_task("ner").baseline(TAGGED, [item])
    assert [item.text[tag.start : tag.end] for tag in prediction.words] == ["Musa", "of", "Kano", ",", "may", "May"]
    assert [tag.label for tag in prediction.words] == ["O", "I-ORG", "B-LOC", "O", "O", "B-PER"]
    assert prediction.probabilities.shape == (6, 7) and prediction.probabilities.sum(axis=1).tolist() == [1.0] * 6


def test_the_baseline_of_entities_against_values_worked_out_by_hand() -> None:
    # said: LOC, ORG ("of"), PER; there: LOC, PER ("Musa May"): one of three, one of two
    test = [tagged("Kano of", "B-LOC O"), tagged("Musa May", "B-PER I-PER"), tagged("Bello", "O")]
    scores = scored("ner", TAGGED, test)
    assert scores["precision"] == pytest.approx(100 / 3) and scores["recall"] == pytest.approx(50)
    assert scores["f1"] == pytest.approx(100 * 2 * 1 / (3 + 2))
    assert 0 <= scores["low"] <= scores["f1"] <= scores["high"] <= 100


def test_the_baseline_of_parts_of_speech_against_values_worked_out_by_hand() -> None:
    train = [tagged("the dog barks loud", "DET NOUN VERB ADV"), tagged("dog food", "NOUN NOUN")]
    test = [tagged("the cat barks", "DET NOUN VERB"), tagged("cat sees dog", "NOUN VERB NOUN")]
    # said: DET NOUN VERB, NOUN NOUN NOUN
    scores = scored("pos", train, test)
    assert scores["accuracy"] == pytest.approx(100 * 5 / 6)
    # DET 1; NOUN 2 * 3 / (3 + 4); VERB 2 * 1 / (2 + 1)
    assert scores["macro_f1"] == pytest.approx(100 * (1 + 6 / 7 + 2 / 3) / 3)


def test_the_baseline_of_inference_is_the_share_of_the_label_most_frequent_in_training() -> None:
    train = [Example(PairItem("a", "b"), label) for label in ("neutral", "entailment", "neutral", "contradiction")]
    test = [Example(PairItem("c", "d"), label) for label in ("entailment", "entailment", "neutral", "contradiction")]
    assert scored("nli", train, test)["accuracy"] == pytest.approx(25)


def test_the_baseline_of_questions_against_values_worked_out_by_hand() -> None:
    # answers of 1, 2 and 4 words: the first two words of a context are said
    train = [asked("Kano", "Kano"), asked("in May 1973", "May 1973"), asked("a b c d", "a b c d", "d")]
    context = "Muhammadu Buhari, born in Daura"
    (prediction,) = training_task("qa").baseline(train, [QuestionItem("?", context)])
    (answer,) = prediction.answers
    assert (answer.text, context[answer.start : answer.end]) == ("Muhammadu Buhari", "Muhammadu Buhari")
    test = [asked(context, "Buhari"), asked(context, "Daura"), asked("Kano", "Kano"), asked(" \n", "Kano")]
    # one word of the two said is right; none; the whole context; nothing to say
    scores = scored("qa", train, test)
    assert scores["f1"] == pytest.approx(100 * (2 * 1 / (2 + 1) + 0 + 1 + 0) / 4)
    assert scores["exact_match"] == pytest.approx(25)


def test_the_baseline_of_trees_against_values_worked_out_by_hand() -> None:
    train = [parsed("a b c d", "2:det 0:root 2:obj 2:obj"), parsed("e", "0:root"), parsed("f", "0:root")]
    test = [parsed("a b c", "0:root 1:obj 1:obj"), parsed("d e", "2:obj 0:root")]
    # said: 0:root 1:obj 2:obj and 0:root 1:obj
    scores = scored("dp", train, test)
    assert scores["uas"] == scores["las"] == pytest.approx(100 * 2 / 5)


def test_a_text_of_two_sentences_has_two_roots() -> None:
    train = [parsed("a b", "2:obj 0:root")]
    (prediction,) = training_task("dp").baseline(train, [SentenceItem("Musa ya zo. Ya tafi.")])
    assert [(word.head, word.relation) for word in prediction.words] == [
        *((0, "root"), (1, "obj"), (2, "obj"), (3, "obj")),
        *((0, "root"), (5, "obj"), (6, "obj")),
    ]
    assert prediction.sentences == ((0, 4), (4, 7))


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("ner", tagged("Kano", "B-LOC")),
        ("pos", tagged("Kano", "PROPN")),
        ("nli", Example(PairItem("a", "b"), "neutral")),
        ("qa", asked("Kano", "Kano")),
        ("dp", parsed("a b", "2:obj 0:root")),
    ],
)
def test_every_task_says_what_its_baseline_does_and_keeps_the_order_of_the_items(name: str, example: Example) -> None:
    task = training_task(name)
    assert task.baseline_rule
    found: list[Any] = task.baseline([example], [example.item] * 3)
    assert len(found) == 3 and np.isfinite(task.terms([example.gold] * 3, found)).all()
