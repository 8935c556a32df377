import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor
from torch.nn import functional

from app.errors import ConfigError, UnknownChoice
from app.plugins import names
from distill.objectives.base import Objective, Outputs, Sum
from distill.objectives.mutual_information import bound

LAYERS = (1, 3)
BATCH = {
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "labels": torch.tensor([[-100, 2, -100, 0, -100], [1, -100, -100, -100, -100]]),
    "predicted": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool(),
}
LENGTHS = (5, 3)
OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, {}) for name in names("distill.objectives")),
    *((name, {"layers": "top"}) for name in ("hidden_states", "attention", "attention_kl", "attention_scores")),
    *((name, {"reduction": "sum"}) for name in ("hidden_states", "attention")),
    ("logits", {"divergence": "kl", "squared": True, "temperature": 3.0}),
    ("relations", {"of": ["values"], "heads": 4}),
)
DIVERGENT = ("mlm", "task", "mutual_information")
"""Not least where student and teacher agree."""


def outputs(n_layers: int, *, seed: int, grad: bool = False) -> Outputs:
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def several(count: int, *shape: int) -> list[Tensor]:
        return [some(*shape).requires_grad_(grad) for _ in range(count)]

    return Outputs(
        hidden_states=several(n_layers + 1, 2, 5, 8),
        attentions=[some(2, 2, 5, 5).softmax(-1).requires_grad_(grad) for _ in range(n_layers)],
        queries=several(n_layers, 2, 2, 5, 4),
        keys=several(n_layers, 2, 2, 5, 4),
        values=several(n_layers, 2, 2, 5, 4),
        logits=several(1, 7, 3),
        loss=some(1).square().sum().requires_grad_(grad),
    )


def tensors(shown: Outputs) -> list[Tensor]:
    parts = (shown.hidden_states, shown.attentions, shown.queries, shown.keys, shown.values, shown.logits)
    return [tensor for part in parts for tensor in part] + ([] if shown.loss is None else [shown.loss])


def value(name: str, student: Outputs, teacher: Outputs, **options: object) -> Tensor:
    return Sum.of({name: options})(student, teacher, BATCH, LAYERS)[name]


def states(shown: Outputs, layer: int) -> list[np.ndarray]:
    """The real positions of each row."""
    return [shown.hidden_states[layer][b, :n].double().detach().numpy() for b, n in enumerate(LENGTHS)]


@pytest.mark.parametrize(("name", "options"), [o for o in OPTIONS if o[0] not in DIVERGENT], ids=str)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(name: str, options: dict[str, object]) -> None:
    teacher = outputs(2, seed=0)
    student = outputs(2, seed=0, grad=True)
    loss = Sum.of({name: options})(student, teacher, BATCH, (0, 1))[name]
    loss.backward()
    learners = [t for t in tensors(student) if t.grad is not None]
    assert learners
    if name != "attention_kl":  # of probabilities that need not sum to one, so its gradient is that of the logarithm
        for tensor in learners:
            torch.testing.assert_close(tensor.grad, torch.zeros_like(tensor), atol=1e-6, rtol=0)
    if options.get("divergence", "cross_entropy") != "cross_entropy" or name != "logits":
        assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_padding_has_no_say_and_gradients_are_finite(name: str, options: dict[str, object]) -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2, grad=True)
    before = value(name, student, teacher, **options)
    before.backward()
    gradients = [t.grad for t in tensors(student) if t.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)
    other, learner = outputs(4, seed=1), outputs(2, seed=2)
    for shown in (other, learner):
        for states in shown.hidden_states:
            states[1, 3:] += 100.0
        for vectors in (*shown.queries, *shown.keys, *shown.values):
            vectors[1, :, 3:] += 100.0
        for attention in shown.attentions:
            attention[1, :, 3:, :] = 1.0
            attention[1, :, :, 3:] = 1.0
    torch.testing.assert_close(before, value(name, learner, other, **options))


def test_hidden_states_match_a_loop_over_positions() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    terms = []
    for i, j in ((0, 0), (1, 2), (2, 4)):
        pairs = zip(states(student, i), states(teacher, j), strict=True)
        terms.append(np.mean(np.concatenate([((a - b) ** 2).mean(axis=1) for a, b in pairs])))
    assert value("hidden_states", student, teacher).item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert value("hidden_states", student, teacher, reduction="sum").item() == pytest.approx(sum(terms), rel=1e-5)
    assert value("hidden_states", student, teacher, layers="top").item() == pytest.approx(terms[-1], rel=1e-5)


def test_attention_matches_a_loop_over_pairs() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    terms = []
    for i, j in enumerate(LAYERS):
        squares = [
            (student.attentions[i][b, h, q, m] - teacher.attentions[j][b, h, q, m]).item() ** 2
            for b, length in enumerate(LENGTHS)
            for h in range(2)
            for q in range(length)
            for m in range(length)
        ]
        terms.append(sum(squares) / len(squares))
    assert value("attention", student, teacher, weight=3.0).item() == pytest.approx(3 * sum(terms) / 2, rel=1e-5)
    assert value("attention", student, teacher, layers="top").item() == pytest.approx(terms[1], rel=1e-5)


def test_attention_divergence_is_the_mean_relative_entropy_of_the_real_rows() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    for shown in (teacher, student):  # as a model does it: padded keys get nothing
        for attention in shown.attentions:
            attention[1, :, :, 3:] = 0.0
            attention /= attention.sum(-1, keepdim=True)
    rows = [
        entropy(teacher.attentions[3][b, h, q, :length].double(), student.attentions[1][b, h, q, :length].double())
        for b, length in enumerate(LENGTHS)
        for h in range(2)
        for q in range(length)
    ]
    assert value("attention_kl", student, teacher, layers="top").item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_attention_scores_are_compared_before_the_softmax() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    total = 0.0
    for i, j in enumerate(LAYERS):
        learnt = torch.einsum("bhqd,bhkd->bhqk", student.queries[i], student.keys[i]) / 2.0
        shown = torch.einsum("bhqd,bhkd->bhqk", teacher.queries[j], teacher.keys[j]) / 2.0
        squares = torch.cat([((learnt - shown) ** 2)[b, :, :n, :n].flatten() for b, n in enumerate(LENGTHS)])
        total += squares.mean().item()
    assert value("attention_scores", student, teacher).item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("heads", [0, 4])
def test_relations_match_numpy_row_by_row(heads: int) -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    cut = heads or 2

    def relation(vectors: Tensor, row: int, head: int) -> np.ndarray:
        whole = np.concatenate([vectors[row, h, : LENGTHS[row]].double().numpy() for h in range(2)], axis=1)
        width = whole.shape[1] // cut
        part = whole[:, head * width : (head + 1) * width]
        return np.asarray(softmax(part @ part.T / math.sqrt(width), axis=1))

    total = 0.0
    for kind in ("queries", "keys", "values"):
        learnt, shown = getattr(student, kind)[-1], getattr(teacher, kind)[-1]
        rows = [
            entropy(relation(shown, b, a)[t], relation(learnt, b, a)[t])
            for b, length in enumerate(LENGTHS)
            for a in range(cut)
            for t in range(length)
        ]
        total += float(np.mean(rows))
    assert value("relations", student, teacher, heads=heads).item() == pytest.approx(total, rel=1e-5)


def test_relations_compare_models_of_other_widths_and_heads() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    narrow = Outputs(queries=student.queries, keys=student.keys, values=[v[..., :2] for v in student.values])
    assert torch.isfinite(value("relations", narrow, teacher, of=["values"], heads=4))
    with pytest.raises(ConfigError, match="heads = 3"):
        value("relations", student, teacher, heads=3)


def test_logits_by_hand() -> None:
    student = Outputs(logits=[torch.tensor([[2.0, 0.0]])])
    teacher = Outputs(logits=[torch.tensor([[0.0, 2.0]])])
    # softmax([0, 1]) = (.26894, .73106); -log softmax([1, 0]) = (.31326, 1.31326); entropy of the first: .58220
    cross = 0.26894 * 0.31326 + 0.73106 * 1.31326
    assert value("logits", student, teacher).item() == pytest.approx(cross, abs=1e-4)
    divergence = value("logits", student, teacher, divergence="kl", squared=True).item()
    assert divergence == pytest.approx(4 * (cross - 0.58220), abs=1e-4)


def test_both_divergences_of_logits_have_one_gradient() -> None:
    teacher = outputs(4, seed=1)
    gradients = []
    for divergence in ("cross_entropy", "kl"):
        student = outputs(2, seed=2, grad=True)
        value("logits", student, teacher, divergence=divergence).backward()
        gradients.append(student.logits[0].grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_logits_without_a_row_teach_nothing() -> None:
    empty = Outputs(logits=[torch.zeros(0, 3, requires_grad=True)])
    assert value("logits", empty, Outputs(logits=[torch.zeros(0, 3)])).item() == 0.0


def test_cosine_matches_the_angle_of_each_real_position() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    angles = [
        1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for mine, theirs in zip(states(student, -1), states(teacher, -1), strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    assert value("cosine", student, teacher).item() == pytest.approx(np.mean(angles), rel=1e-5)


def test_masked_language_modelling_scores_the_masked_positions_alone() -> None:
    student = outputs(2, seed=2)
    surprise = -log_softmax(student.logits[0].double().numpy(), axis=1)
    # rows of the logits: the five positions of row 0, where 1 and 3 are masked, and the first two of row 1
    expected = np.mean([surprise[1, 2], surprise[3, 0], surprise[5, 1]])
    assert value("mlm", student, Outputs()).item() == pytest.approx(expected, rel=1e-5)
    nothing = {**BATCH, "labels": torch.full((2, 5), -100)}
    assert Sum.of({"mlm": 1.0})(student, Outputs(), nothing, LAYERS)["mlm"].item() == 0.0


def test_gold_labels_enter_by_the_tasks_own_loss_and_ask_for_no_teacher() -> None:
    assert value("task", Outputs(loss=torch.tensor(1.5)), Outputs(), weight=2.0).item() == 3.0
    assert not Sum.of({"task": 1.0, "mlm": 1.0}).reads_teacher
    assert Sum.of({"task": 1.0, "logits": 1.0}).reads_teacher


def test_mutual_information_at_alpha_one_is_infonce() -> None:
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    expected = math.log(6) - functional.cross_entropy(scores, torch.arange(6)).item()
    assert bound(scores, alpha=1.0).item() == pytest.approx(expected, abs=1e-5)
    assert bound(torch.eye(6) * 100, alpha=1.0).item() == pytest.approx(math.log(6), abs=1e-5)


def test_mutual_information_at_alpha_zero_is_the_bound_of_nguyen_wainwright_and_jordan() -> None:
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    apart = np.exp(scores.numpy())[~np.eye(6, dtype=bool)].mean()
    assert bound(scores, alpha=0.0).item() == pytest.approx(1 + scores.diagonal().mean().item() - apart, abs=1e-6)


def test_mutual_information_between_the_two_is_poole_et_al_written_out() -> None:
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double().numpy()
    e = np.exp(scores)
    joint, apart = [], []
    for i in range(5):
        others = [e[i, j] for j in range(5) if j != i]
        joint.append(math.log(e[i, i] / (0.3 * e[i].mean() + 0.7)))
        apart += [other / (0.3 * np.mean(others) + 0.7) for other in others]
    expected = 1 + np.mean(joint) - np.mean(apart)
    assert bound(torch.from_numpy(scores), alpha=0.3).item() == pytest.approx(expected, abs=1e-6)


def test_the_reference_implementations_arithmetic_counts_padding() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    for attention in teacher.attentions:
        attention[1, :, :, 3:] = 0.0  # a masked softmax gives padded keys exactly this
    whole = np.mean(
        [
            ((student.hidden_states[i] - teacher.hidden_states[j]) ** 2).mean().item()
            for i, j in ((0, 0), (1, 2), (2, 4))
        ]
    )
    assert value("hidden_states", student, teacher, padding=True).item() == pytest.approx(whole, rel=1e-5)
    terms = []
    for i, j in enumerate(LAYERS):
        squares = (student.attentions[i] - teacher.attentions[j]) ** 2
        terms.append((squares[0].sum() + squares[1, :, :, :3].sum()).item() / (2 * 25 + 2 * 15))
    assert value("attention", student, teacher, padding=True).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_what_supervises_keeps_no_history() -> None:
    shown = outputs(2, seed=0, grad=True).detach()
    assert not any(tensor.requires_grad for tensor in tensors(shown)) and shown.loss is None


@pytest.mark.parametrize("name", names("distill.objectives"))
def test_every_objective_tells_its_formula_and_needs(name: str) -> None:
    objective: Objective = Sum.of({name: 1.0}).parts[name][1]
    known = {"hidden_states", "attentions", "queries_keys_values", "logits", "labels"}
    assert objective.needs and objective.needs <= known
    assert len(type(objective).__doc__ or "") > 40


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"hiden": 1.0}, "hidden_states"),
        ({"logits": 0.0}, "weight"),
        ({"logits": {"temprature": 1.0}}, "temperature"),
        ({"logits": {"divergence": "l2"}}, "cross_entropy"),
        ({"logits": "much"}, "weight"),
    ],
)
def test_a_wrong_objective_is_refused_with_the_choices(table: dict[str, object], told: str) -> None:
    with pytest.raises((ConfigError, UnknownChoice), match=told):
        Sum.of(table)
