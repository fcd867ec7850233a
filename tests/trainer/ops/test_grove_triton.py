"""The dispatch's Triton kernels, in the interpreter where there is no GPU, against plain PyTorch in float64."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.grove import group, launch, library, plain
from kanctl.trainer.ops.grove.route import route_dispatch, route_grouped_linear
from kanctl.trainer.ops.route import Machine

pytestmark = pytest.mark.usefixtures("poisoned")

H200 = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
SIZES = [(1, 1, 1, 3), (5, 3, 2, 4), (9, 600, 3, 3), (0, 4, 2, 4)]
sizes = pytest.mark.parametrize(("tokens", "channels", "active", "experts"), SIZES)


def case(tokens: int, channels: int, active: int, experts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, their rows' places, weights, and rows."""
    generator = torch.Generator().manual_seed(tokens)
    expert_Nk = torch.rand(tokens, experts, generator=generator).topk(active, dim=1).indices.sort(dim=1).values
    place_Nk, _ = group(expert_Nk, experts)
    x, rows = (torch.randn(n, channels, generator=generator) for n in (tokens, tokens * active))
    return x, place_Nk, torch.rand(tokens, active, generator=generator), rows


@sizes
def test_rows_and_sums_are_those_of_plain_pytorch(tokens: int, channels: int, active: int, experts: int) -> None:
    x, place, weight, rows = case(tokens, channels, active, experts)
    torch.testing.assert_close(launch.spread(x, place, None).double(), library.spread_op(x.double(), place))
    wanted = library.add_up_op(rows.double(), place, weight.double()).float()
    torch.testing.assert_close(launch.add_up(rows, place, weight), wanted)
    of_rows, of_weight = library.add_up_backward_op(x.double(), rows.double(), place, weight.double())
    torch.testing.assert_close(launch.spread(x, place, weight), of_rows.float())
    torch.testing.assert_close(launch.share_gradient(rows, place, x, weight), of_weight.float(), rtol=1e-5, atol=1e-5)
    of_x = library.spread_backward_op(rows.double(), place).float()
    torch.testing.assert_close(launch.add_up(rows, place, None), of_x)


# Tokens, experts, selector rank, active: one of each; nothing a power of two; more tokens than a program's.
CHOICES = [(1, 1, 1, 1), (7, 5, 3, 2), (70, 16, 8, 1), (300, 6, 5, 6), (0, 3, 2, 1)]


def views(tokens: int, experts: int, rank: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(experts)
    made = {
        "seen": torch.randn(tokens, experts * (rank + 1), generator=generator),
        "scale": torch.rand(experts, generator=generator) + 0.5,
        "bias": torch.randn(experts, generator=generator),
        "shift": torch.randn(experts, generator=generator) * 0.1,
    }
    # One token that no selector sees.
    made["seen"][tokens // 2 : tokens // 2 + 1, : experts * rank] = 0
    return made


@pytest.mark.parametrize(("tokens", "experts", "rank", "active"), CHOICES)
def test_choices_and_their_gradients_are_those_of_plain_pytorch(
    tokens: int, experts: int, rank: int, active: int
) -> None:
    made = views(tokens, experts, rank)
    wide = {name: value.double().requires_grad_(name != "shift") for name, value in made.items()}
    weight, expert = launch.choose(*made.values(), active, plain.LEAST_SCORE)
    wanted, wanted_expert = library.choose_op(*wide.values(), active)
    # Which experts a token has that no selector sees is all one: the shifts decide, and ties go either way.
    assert torch.equal(expert, wanted_expert)
    torch.testing.assert_close(weight, wanted.float())
    grad = torch.randn(tokens, active, generator=torch.Generator().manual_seed(1))
    narrow = [made[name] for name in ("seen", "scale", "bias")]
    found = launch.choose_gradient(grad, *narrow, expert, plain.LEAST_SCORE)
    exact = library.choose_backward_op(grad.double(), *(value.double() for value in narrow), wanted_expert)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-5)


# The interpreter computes with numpy, which warns where a GPU gives the wanted NaN.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_token_with_nan_has_experts_that_are_there_and_weights_that_are_nan() -> None:
    made = views(9, 5, 3)
    made["seen"][4], made["seen"][6] = float("nan"), float("inf")
    weight, expert = launch.choose(*made.values(), 2, plain.LEAST_SCORE)
    assert bool(((expert >= 0) & (expert < 5)).all())
    assert weight[4].isnan().all()
    assert weight[[0, 1, 2, 3, 5, 7, 8]].isfinite().all()


def test_the_gradient_of_the_choice_is_that_of_its_formula() -> None:
    made = {name: value.double() for name, value in views(6, 4, 3).items()}
    made["seen"] = made["seen"][torch.tensor([0, 1, 2, 4, 5])]
    inputs = [made[name].requires_grad_() for name in ("seen", "scale", "bias")]
    assert torch.autograd.gradcheck(lambda *x: library.choose_op(*x, made["shift"], 2)[0], inputs)


def test_the_operators_keep_torchs_rules() -> None:
    x, place, weight, rows = (value.double() if value.is_floating_point() else value for value in case(5, 3, 2, 4))
    made = {name: value.double().requires_grad_(name != "shift") for name, value in views(5, 4, 3).items()}
    torch.library.opcheck(library.choose_op, (*made.values(), 2))
    torch.library.opcheck(library.spread_op, (x.requires_grad_(), place))
    torch.library.opcheck(library.add_up_op, (rows.requires_grad_(), place, weight.requires_grad_()))
    torch.library.opcheck(library.spread_backward_op, (rows.detach(), place))
    torch.library.opcheck(library.add_up_backward_op, (x.detach(), rows.detach(), place, weight.detach()))


@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("experts", [1, 3, 300])
def test_rows_are_grouped_by_expert_in_the_order_of_their_tokens(experts: int, tokens: int) -> None:
    drawn_Nk = torch.randint(experts, (tokens, 2), generator=torch.Generator().manual_seed(0))
    expert_Nk = drawn_Nk.sort(dim=1).values
    place_Nk, ends_E = group(expert_Nk, experts)
    order_M = sorted(range(2 * tokens), key=lambda row: (int(expert_Nk.flatten()[row]), row))
    assert [order_M.index(row) for row in range(2 * tokens)] == place_Nk.flatten().tolist()
    assert ends_E.dtype == torch.int32
    assert ends_E.tolist() == torch.bincount(expert_Nk.flatten(), minlength=experts).cumsum(0).tolist()


@pytest.mark.parametrize(
    ("machine", "options", "implementation", "reason"),
    [
        (H200, {}, "grouped", "one product"),
        (H200, {"rows": 2}, "grouped", "one product"),
        (
            H200,
            {"dtype": "float32"},
            "each",
            "needs bfloat16, multiples of 8 and compute capability 9.0; found float32",
        ),
        (H200, {"inputs": 20}, "each", "20 x 16 and 9.0"),
        (H200, {"dtype": "float32", "rows": 2}, "copied", "few rows"),
        (Machine(device="cuda", capability=(8, 0)), {}, "each", "16 x 16 and 8.0"),
        (Machine(device="cpu"), {}, "each", "the device is cpu"),
    ],
)
def test_the_route_of_linear_subnets_says_what_runs_and_why(machine, options, implementation, reason) -> None:
    route = route_grouped_linear(machine, **{"inputs": 16, "outputs": 16, "dtype": "bfloat16", **options})
    assert route.implementation == implementation
    assert reason in route.reason


def test_the_dispatch_has_kernels_on_a_gpu_alone() -> None:
    assert route_dispatch(H200, dtype="bfloat16").implementation == "triton"
    assert route_dispatch(H200, dtype="float64").implementation == "torch"
    assert route_dispatch(Machine(device="cpu"), dtype="float32").implementation == "torch"
