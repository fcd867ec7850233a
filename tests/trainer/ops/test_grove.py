"""The dispatch of KalmaGrove: the values and gradients of the dense form, with any load, bit for bit twice."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.grove import choose, dispatch, grouped_linear
from kanctl.trainer.ops.grove.reference import grove_reference

WIDTH, OUT = 5, 4


def inputs(tokens: int, experts: int) -> dict[str, Tensor]:
    torch.manual_seed(experts)
    made = {
        "x": torch.randn(tokens, WIDTH),
        "selector": torch.randn(experts, 2, WIDTH),
        "gate": torch.randn(experts, WIDTH),
        "bias": torch.randn(experts),
        "weight": torch.randn(experts, WIDTH, OUT),
    }
    return {name: value.double().requires_grad_() for name, value in made.items()}


def run_sparse(made: dict[str, Tensor], offset: Tensor, active: int) -> Tensor:
    choice = choose(made["x"], made["selector"], made["gate"], made["bias"], offset, active)
    run = lambda x, ends: torch.tanh(grouped_linear(x, made["weight"], ends))  # noqa: E731
    return dispatch(made["x"], choice, len(offset), run)


def run_dense(made: dict[str, Tensor], offset: Tensor, active: int) -> Tensor:
    gates = (made["selector"], made["gate"], made["bias"])
    return grove_reference(made["x"], *gates, offset, active, lambda e, x: torch.tanh(x @ made["weight"][e]))


@pytest.mark.parametrize(("experts", "active"), [(1, 1), (4, 1), (5, 2), (3, 3)])
@pytest.mark.parametrize("tokens", [1, 23])
@pytest.mark.parametrize("loads", ["own", "all to one", "one empty"])
def test_values_and_gradients_are_those_of_the_dense_form(experts, active, tokens, loads) -> None:
    made = inputs(tokens, experts)
    offset = torch.zeros(experts).double()
    offset[-1] = {"own": 0.0, "all to one": 1e3, "one empty": -1e3}[loads]
    found, wanted = run_sparse(made, offset, active), run_dense(made, offset, active)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(wanted)
    slopes = [torch.autograd.grad(out, list(made.values()), pull) for out in (found, wanted)]
    for name, one, other in zip(made, *slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_no_token_gives_no_output_and_zero_gradients() -> None:
    made = inputs(0, 3)
    out = run_sparse(made, torch.zeros(3).double(), 2)
    assert out.shape == (0, OUT)
    out.sum().backward()
    assert torch.equal(made["weight"].grad, torch.zeros(3, WIDTH, OUT).double())


def test_the_same_inputs_give_the_same_bits() -> None:
    made = inputs(301, 4)
    first, second = (run_sparse(made, torch.zeros(4).double(), 2) for _ in range(2))
    assert torch.equal(first, second)
    slopes = [torch.autograd.grad(out.square().sum(), list(made.values())) for out in (first, second)]
    assert all(torch.equal(one, other) for one, other in zip(*slopes, strict=True))


def test_the_offset_turns_the_choice_and_nothing_else() -> None:
    x, selector, shut = torch.tensor([[0.6, 0.5, 0.1]]), torch.eye(3)[:, None], (torch.zeros(3, 3), torch.zeros(3))
    plain = choose(x, selector, *shut, torch.zeros(3), 1)
    turned = choose(x, selector, *shut, torch.tensor([0.0, 0.2, 0.0]), 1)
    assert (plain.expert_Nk.item(), turned.expert_Nk.item()) == (0, 1)
    assert plain.weight_Nk.item() == turned.weight_Nk.item() == 0.5


def test_a_token_that_no_selector_sees_stays_a_number() -> None:
    made = inputs(3, 4)
    made["x"] = torch.zeros(3, WIDTH).double().requires_grad_()
    out = run_sparse(made, torch.zeros(4).double(), 2)
    out.sum().backward()
    assert out.isfinite().all()
    assert made["x"].grad.isfinite().all()


@pytest.mark.parametrize("active", [0, 5])
def test_more_active_experts_than_there_are_is_refused(active: int) -> None:
    with pytest.raises(ValueError, match=f"wanted 1 to 4 active experts, found {active}"):
        run_sparse(inputs(2, 4), torch.zeros(4).double(), active)
