from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.errors import UnknownChoice
from app.plugins import names
from app.rows import Row, Tensors
from app.tasks.dependency_parsing import Dependent, SentenceItem, TreePrediction
from app.tasks.question_answering import Answer, AnswerPrediction, QuestionItem
from app.tasks.sequence_classification import ClassPrediction, PairItem
from app.tasks.token_classification import Tag, TokenItem, TokenPrediction
from distill.datasets.base import joined
from distill.tasks.base import TASKS, UD_RELATIONS, Arc, Example, Span, collate, task_named, training_task
from distill.tasks.question_answering import normalised, token_f1
from tests.distill import tiny


def row(words: list[int], spans: list[tuple[int, int]] | None = None) -> Row:
    n = len(words)
    return Row(
        ids=np.arange(n) + 5,
        type_ids=np.zeros(n, np.int64),
        words=np.asarray(words),
        spans=np.asarray(spans if spans is not None else [(-1, -1)] * n),
    )


def tagged(labels: str) -> TokenPrediction:
    tags = tuple(Tag(0, 0, label, 1.0) for label in labels.split())
    return TokenPrediction(tags, np.zeros((len(tags), 1)))


def tree(arcs: str) -> TreePrediction:
    pairs = [arc.split(":") for arc in arcs.split()]
    words = tuple(Dependent(0, 0, int(head), relation, 1.0) for head, relation in pairs)
    return TreePrediction(words, ((0, len(words)),))


def gold_tree(arcs: str) -> tuple[Arc, ...]:
    return tuple(Arc(word.head, word.relation) for word in tree(arcs).words)


def said(text: str) -> AnswerPrediction:
    return AnswerPrediction((Answer(text, 0, len(text), 1.0),))


def test_every_task_has_both_halves_of_its_codec() -> None:
    for spec in TASKS.values():
        assert spec.codec in names("distill.tasks") and spec.codec in names("app.tasks")
        task = training_task(spec.name)
        assert (task.name, task.codec, task.labels, task.main_metric) == (
            spec.name,
            spec.codec,
            spec.labels,
            spec.main_metric,
        )
    with pytest.raises(UnknownChoice, match="ner, pos, nli, qa"):
        task_named("summary")


def test_a_word_is_labelled_on_its_first_piece_in_every_window() -> None:
    task = training_task("ner")
    example = Example(TokenItem("a b c"), ("O", "B-PER", "I-PER"))
    first, second = task.targets(example, [row([-1, 0, 1, 1, -1]), row([-1, 1, 1, 2, -1])])
    assert first["labels"].tolist() == [-100, 0, 1, -100, -100]
    assert second["labels"].tolist() == [-100, 1, -100, 2, -100]


def test_collate_pads_labels_with_the_ignored_index_and_masks_with_zero() -> None:
    task = training_task("qa")
    example = Example(QuestionItem("q", "ab cd"), (Span(3, "cd"),))
    rows = [row([-1] * 5, [(-1, -1), (-1, -1), (0, 2), (3, 5), (-1, -1)]), row([-1] * 3, [(-1, -1), (0, 2), (-1, -1)])]
    batch = collate(rows, task.targets(example, rows), pad_id=1)
    assert batch["input_ids"][1].tolist() == [5, 6, 7, 1, 1]
    assert batch["attention_mask"][1].tolist() == [1, 1, 1, 0, 0]
    assert batch["position_mask"].tolist() == [[1, 0, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert batch["start_positions"].tolist() == [3, 0]
    assert batch["end_positions"].tolist() == [3, 0]
    labels = collate(rows, [{"labels": np.zeros(5, int)}, {"labels": np.zeros(3, int)}], pad_id=1)["labels"]
    assert labels.tolist() == [[0] * 5, [0, 0, 0, -100, -100]]


def test_the_token_loss_and_the_distilled_logits_ignore_padding_and_inner_pieces() -> None:
    task = training_task("ner", ("O", "B-PER"))
    labels = torch.tensor([[-100, 1, -100], [0, -100, -100]])
    logits = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    outputs = SimpleNamespace(logits=logits)
    expected = -(logits[0, 1].log_softmax(-1)[1] + logits[1, 0].log_softmax(-1)[0]) / 2
    assert torch.isclose(task.loss(outputs, {"labels": labels}), expected)
    (distilled,) = task.distilled_logits(outputs, {"labels": labels})
    assert torch.equal(distilled, torch.stack([logits[0, 1], logits[1, 0]]))
    assert task.loss(outputs, {"labels": torch.full((2, 3), -100)}) == 0


def test_the_question_answering_loss_does_not_depend_on_padding_or_the_question() -> None:
    task = training_task("qa")
    start = torch.tensor([[0.5, 9.0, 1.0, 2.0, 7.0]], requires_grad=True)
    batch = {
        "position_mask": torch.tensor([[1, 0, 1, 1, 0]]),
        "start_positions": torch.tensor([2]),
        "end_positions": torch.tensor([3]),
    }
    loss = task.loss(SimpleNamespace(start_logits=start, end_logits=start), batch)
    kept = torch.tensor([0.5, 1.0, 2.0]).log_softmax(-1)
    assert torch.isclose(loss, -(kept[1] + kept[2]) / 2)
    loss.backward()
    assert start.grad is not None and start.grad[0, [1, 4]].tolist() == [0, 0]


def test_the_pair_loss_is_cross_entropy() -> None:
    task = training_task("nli")
    example = Example(PairItem("a", "b"), "contradiction")
    (target,) = task.targets(example, [row([-1, -1])])
    batch = collate([row([-1, -1])], [target], pad_id=0)
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    assert batch["labels"].tolist() == [2]
    assert torch.isclose(task.loss(SimpleNamespace(logits=logits), batch), -logits.log_softmax(-1)[0, 2])


def test_entity_scores_against_values_worked_out_by_hand() -> None:
    task = training_task("ner")
    gold = [("B-PER", "I-PER", "O", "B-LOC"), ("B-ORG", "O")]
    # found: PER right, LOC cut in two (both wrong kinds of spans), ORG missed, one LOC invented
    predictions = [tagged("B-PER I-PER O I-LOC"), tagged("O B-LOC")]
    scores = task.score(gold, predictions)
    assert scores == pytest.approx({"precision": 100 * 2 / 3, "recall": 100 * 2 / 3, "f1": 100 * 2 / 3})
    terms = task.terms(gold, predictions)
    assert terms.tolist() == [[4, 4], [0, 2]]


def test_word_scores_against_values_worked_out_by_hand() -> None:
    task = training_task("pos")
    gold, predictions = [("NOUN", "VERB", "NOUN"), ("ADJ",)], [tagged("NOUN NOUN NOUN"), tagged("ADJ")]
    scores = task.score(gold, predictions)
    # NOUN 2 * 2 / (2 + 3), VERB 0, ADJ 1
    assert scores == pytest.approx({"accuracy": 75.0, "macro_f1": 100 * (0.8 + 0 + 1) / 3})
    assert task.terms(gold, predictions).tolist() == [[2, 3], [1, 1]]


def test_accuracy_counts_an_unanswered_pair_as_wrong() -> None:
    task = training_task("nli")
    right = ClassPrediction({"entailment": 0.1, "neutral": 0.7, "contradiction": 0.2})
    assert task.score(["neutral", "entailment", "neutral"], [right, right, None]) == pytest.approx(
        {"accuracy": 100 / 3}
    )


def test_squad_scores_against_values_worked_out_by_hand() -> None:
    task = training_task("qa")
    gold = [(Span(0, "the Red Sea"), Span(4, "Red")), (Span(0, "1973"),), (Span(-1, "yes"),), (Span(0, "x"),)]
    predictions = [said("Red sea!"), said("October 1973"), said("no"), None]
    scores = task.score(gold, predictions)
    assert scores == pytest.approx({"exact_match": 25.0, "f1": 100 * (1 + 2 / 3 + 0 + 0) / 4})


def test_squad_normalisation() -> None:
    assert normalised("  The  U.S.A., an  island ") == "usa island"
    assert normalised("theatre") == "theatre"
    assert token_f1("a b b c", "b b d") == pytest.approx(2 * 2 / (3 + 3))
    assert token_f1("the", "an") == 1.0 and token_f1("the", "x") == 0.0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_question_targets_point_at_the_answer_through_a_real_tokenizer(family: str) -> None:
    tokenizer = tiny.tiny_tokenizer(family).backend_tokenizer
    context = " ".join(tiny.HAUSA)
    start = context.index("kasuwa")
    task = training_task("qa")
    codec = task.codec_for(max_length=60, stride=16, pad_id=0)
    example = Example(QuestionItem("A ina?", context), (Span(start, "kasuwa"),))
    rows = codec.encode(example.item, tokenizer)
    targets = task.targets(example, rows)
    assert len(rows) > 1 and {len(rows)} == {len(targets)}
    placed = [(r, int(t["start_positions"]), int(t["end_positions"])) for r, t in zip(rows, targets, strict=True)]
    texts = [context[r.spans[first, 0] : r.spans[last, 1]].strip() for r, first, last in placed if last]
    assert texts and set(texts) <= {"kasuwa"}
    assert all((first, last) == (0, 0) for _, first, last in placed if not last)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_perfect_logits_give_a_perfect_score(family: str) -> None:
    tokenizer = tiny.tiny_tokenizer(family).backend_tokenizer
    task = training_task("ner")
    text, spans = joined(tiny.HAUSA[4].split())
    gold = tuple(task.labels[index % len(task.labels)] for index in range(len(spans)))
    example = Example(TokenItem(text, spans), gold)
    codec = task.codec_for(max_length=16, stride=4, pad_id=0)
    rows = codec.encode(example.item, tokenizer)
    outputs: list[Tensors] = [
        {"logits": np.eye(len(task.labels))[np.maximum(t["labels"], 0)].astype(np.float32)}
        for t in task.targets(example, rows)
    ]
    prediction = codec.decode(example.item, rows, outputs)
    assert tuple(word.label for word in prediction.words) == gold
    assert task.score([gold], [prediction])["f1"] == pytest.approx(100)


@pytest.mark.parametrize("pad_id", [0, 1])
def test_all_three_words_of_a_sentence_are_scored_whatever_the_id_of_padding(pad_id: int) -> None:
    task = training_task("dp")
    example = Example(SentenceItem("a b c", ((0, 1), (2, 3), (4, 5))), gold_tree("2:nsubj 0:root 1:obj"))
    rows = [row([-1, 0, 1, 1, 2, -1]), row([-1, 0, 1, 2, -1, -1, -1, -1, -1])]
    batch = collate(rows, [target for one in rows for target in task.targets(example, [one])], pad_id=pad_id)
    assert batch["arcs"].tolist() == [
        [-100, 2, 0, -100, 1, -100, -100, -100, -100],
        [-100, 2, 0, 1, -100, -100, -100, -100, -100],
    ]
    assert batch["head_mask"].tolist() == [[1, 1, 1, 0, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0]]
    nsubj, root, obj = (UD_RELATIONS.index(relation) for relation in ("nsubj", "root", "obj"))
    assert batch["relations"][0].tolist() == [-100, nsubj, root, -100, obj, -100, -100, -100, -100]
    outputs = SimpleNamespace(
        arc_scores=torch.zeros(2, 9, 9),
        relation_dependents=torch.zeros(2, 9, 37, 3),
        relation_heads=torch.ones(2, 9, 3),
    )
    arcs, relations = task.distilled_logits(outputs, batch)
    assert (len(arcs), len(relations)) == (6, 6)
    assert task.terms([example.gold], [tree("2:nsubj 0:root 2:obj")]).tolist() == [[2, 3]]


def test_attachment_scores_against_values_worked_out_by_hand() -> None:
    task = training_task("dp")
    gold = [gold_tree("2:nsubj 0:root 2:obj 3:punct"), gold_tree("0:root")]
    # a wrong relation, two words under wrong heads, the roots right: 3 of 5 heads, 2 of 5 with their relation
    predictions = [tree("2:obj 0:root 1:obj 2:punct"), tree("0:root")]
    assert task.score(gold, predictions) == pytest.approx({"uas": 60.0, "las": 40.0})
    assert task.terms(gold, predictions).tolist() == [[1, 4], [1, 1]]


def test_the_parsers_loss_is_that_of_heads_among_words_and_of_relations_under_gold_heads() -> None:
    task = training_task("dp", ("dep", "obj", "root"))
    example = Example(SentenceItem("a b", ((0, 1), (2, 3))), gold_tree("2:obj 0:root"))
    rows = [row([-1, 0, 0, 1, -1]), row([-1])]
    targets = [*task.targets(example, rows[:1]), *task.targets(Example(SentenceItem(""), ()), rows[1:])]
    batch = collate(rows, targets, pad_id=0)
    generator = torch.Generator().manual_seed(0)
    arcs, dependents, heads = (
        torch.randn(shape, generator=generator, requires_grad=True) for shape in ((2, 5, 5), (2, 5, 3, 4), (2, 5, 4))
    )
    outputs = SimpleNamespace(arc_scores=arcs, relation_dependents=dependents, relation_heads=heads)
    # word a is piece 1 and may hang on the root, 0, or on b, 3; b is piece 3 and may hang on 0 or 1
    of_heads = -(arcs[0, 1, [0, 3]].log_softmax(0)[1] + arcs[0, 3, [0, 1]].log_softmax(0)[0]) / 2
    of_a = torch.stack([torch.dot(dependents[0, 1, label], heads[0, 3]) for label in range(3)])
    of_b = torch.stack([torch.dot(dependents[0, 3, label], heads[0, 0]) for label in range(3)])
    of_relations = -(of_a.log_softmax(0)[1] + of_b.log_softmax(0)[2]) / 2
    loss = task.loss(outputs, batch)
    torch.testing.assert_close(loss, of_heads + of_relations)
    loss.backward()
    assert arcs.grad is not None and dependents.grad is not None
    assert arcs.grad[1].abs().sum() == 0 and dependents.grad[1].abs().sum() == 0
    looked_at = arcs.grad[0].nonzero().tolist()
    assert looked_at == [[1, 0], [1, 3], [3, 0], [3, 1]]
    batch["arcs"][:] = -100
    assert task.loss(outputs, batch) == 0


def test_a_head_outside_the_window_is_no_target() -> None:
    task = training_task("dp")
    example = Example(SentenceItem("a b c"), gold_tree("3:nsubj 3:obj 0:root"))
    (first, second) = task.targets(example, [row([-1, 0, 1, -1]), row([-1, 1, 2, 2, -1])])
    assert first["arcs"].tolist() == [-100, -100, -100, -100] == first["relations"].tolist()
    assert second["arcs"].tolist() == [-100, 2, 0, -100, -100]


@pytest.mark.parametrize("max_length", [48, 12])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_perfect_outputs_give_a_perfect_tree(family: str, max_length: int) -> None:
    tokenizer = tiny.tiny_tokenizer(family).backend_tokenizer
    task = training_task("dp")
    text, spans = joined(tiny.HAUSA[4].split())
    # a chain, so that every head is near enough to be seen in a short window too
    gold = (Arc(0, "root"), *(Arc(place, UD_RELATIONS[place]) for place in range(1, len(spans))))
    example = Example(SentenceItem(text, spans), gold)
    codec = task.codec_for(max_length=max_length, stride=max_length // 2, pad_id=0)
    rows = codec.encode(example.item, tokenizer)
    assert (len(rows) > 1) == (max_length == 12)
    outputs: list[Tensors] = []
    for target in task.targets(example, rows):
        arcs, relations = np.maximum(target["arcs"], 0), np.maximum(target["relations"], 0)
        outputs.append(
            {
                "arc_scores": 9.0 * np.eye(len(arcs))[arcs] * (target["arcs"] >= 0)[:, np.newaxis],
                "relation_dependents": 9.0 * np.eye(len(task.labels))[relations][:, :, np.newaxis],
                "relation_heads": np.ones((len(arcs), 1)),
            }
        )
    prediction = codec.decode(example.item, rows, outputs)
    assert task.score([gold], [prediction]) == pytest.approx({"las": 100, "uas": 100})
