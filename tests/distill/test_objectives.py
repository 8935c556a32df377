import pytest
import torch

from app.errors import ConfigError, UnknownChoice
from app.plugins import names
from distill.objectives.base import Outputs, Sum
from distill.objectives.hidden_states import Objective as HiddenStates
from distill.objectives.logits import Objective as Logits

LAYERS = (1, 3)


def outputs(n_layers: int, *, seed: int, grad: bool = False) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(2, 5, 8, generator=generator, requires_grad=grad) for _ in range(n_layers + 1)]
    attentions = [
        torch.randn(2, 2, 5, 5, generator=generator).softmax(-1).requires_grad_(grad) for _ in range(n_layers)
    ]
    return Outputs(
        hidden_states=states, attentions=attentions, logits=[torch.randn(7, 3, generator=generator, requires_grad=grad)]
    )


BATCH = {"attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}


@pytest.mark.parametrize("name", names("distill.objectives"))
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(name: str) -> None:
    teacher = outputs(2, seed=0)
    student = Outputs(
        hidden_states=[h.clone().requires_grad_() for h in teacher.hidden_states],
        attentions=[a.clone().requires_grad_() for a in teacher.attentions],
        logits=[z.clone().requires_grad_() for z in teacher.logits],
    )
    loss = Sum.of({name: 1.0})(student, teacher, BATCH, (0, 1))[name]
    loss.backward()
    learners = [t for t in (*student.hidden_states, *student.attentions, *student.logits) if t.grad is not None]
    assert learners
    for tensor in learners:
        torch.testing.assert_close(tensor.grad, torch.zeros_like(tensor), atol=1e-6, rtol=0)
    if name != "logits":
        assert loss.item() == 0.0


@pytest.mark.parametrize("name", names("distill.objectives"))
def test_padding_has_no_say_and_gradients_are_finite(name: str) -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2, grad=True)
    before = Sum.of({name: 1.0})(student, teacher, BATCH, LAYERS)[name]
    before.backward()
    grads = [t.grad for t in (*student.hidden_states, *student.attentions, *student.logits) if t.grad is not None]
    assert grads and all(torch.isfinite(g).all() for g in grads)
    other = outputs(4, seed=1)
    for states in other.hidden_states:
        states[1, 3:] += 100.0
    for attention in other.attentions:
        attention[1, :, 3:, :] += 1.0
        attention[1, :, :, 3:] += 1.0
    after = Sum.of({name: 1.0})(student, other, BATCH, LAYERS)[name]
    torch.testing.assert_close(before, after)


def test_hidden_states_match_a_loop_over_positions() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    total = 0.0
    for i, j in ((0, 0), (1, 2), (2, 4)):
        squares = [
            ((student.hidden_states[i][b, n] - teacher.hidden_states[j][b, n]) ** 2).mean().item()
            for b, length in ((0, 5), (1, 3))
            for n in range(length)
        ]
        total += sum(squares) / len(squares)
    assert HiddenStates()(student, teacher, BATCH, LAYERS).item() == pytest.approx(total / 3, rel=1e-5)


def test_attention_matches_a_loop_over_pairs() -> None:
    teacher, student = outputs(4, seed=1), outputs(2, seed=2)
    total = 0.0
    for i, j in enumerate(LAYERS):
        squares = [
            (student.attentions[i][b, h, q, m] - teacher.attentions[j][b, h, q, m]).item() ** 2
            for b, length in ((0, 5), (1, 3))
            for h in range(2)
            for q in range(length)
            for m in range(length)
        ]
        total += sum(squares) / len(squares)
    loss = Sum.of({"attention": 3.0})(student, teacher, BATCH, LAYERS)["attention"]
    assert loss.item() == pytest.approx(3 * total / 2, rel=1e-5)


def test_logits_by_hand() -> None:
    student = Outputs(logits=[torch.tensor([[2.0, 0.0]])])
    teacher = Outputs(logits=[torch.tensor([[0.0, 2.0]])])
    # softmax([0, 1]) = (.26894, .73106); -log softmax([1, 0]) = (.31326, 1.31326)
    assert Logits()(student, teacher, {}, ()).item() == pytest.approx(0.26894 * 0.31326 + 0.73106 * 1.31326, abs=1e-4)


def test_an_unknown_or_weightless_objective_is_refused() -> None:
    with pytest.raises(UnknownChoice, match="hidden_states"):
        Sum.of({"hiden": 1.0})
    with pytest.raises(ConfigError):
        Sum.of({"logits": 0.0})
