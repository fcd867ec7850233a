"""The Kalman filter's Triton kernels, in the interpreter where there is no GPU, against the recursion in float64."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.kalman import kalman_filter, launch, library
from kanctl.trainer.ops.kalman.reference import kalman_reference
from kanctl.trainer.ops.kalman.route import route_kalman
from kanctl.trainer.ops.route import Machine

pytestmark = pytest.mark.usefixtures("poisoned")

# Lengths of the documents of a row; tokens that fill no chunk, one token, a document on a chunk's border.
ROWS = [[1], [7], [32], [5, 1, 30], [32, 33]]


def case(lengths: list[int], channels: int, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    position = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1).contiguous()
    observed = torch.randn(2, sum(lengths), channels, generator=generator)
    noise = (torch.randn(2, sum(lengths), channels, generator=generator) * spread).exp()
    drift = torch.rand(channels, generator=generator)
    return observed, noise, drift, position


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm().clamp(min=1e-30))


@pytest.mark.parametrize(("channels", "spread"), [(1, 1.0), (5, 8.0), (33, 1.0)])
@pytest.mark.parametrize("lengths", ROWS, ids=str)
def test_values_and_gradients_are_those_of_the_recursion(lengths: list[int], channels: int, spread: float) -> None:
    observed, noise, drift, position = case(lengths, channels, spread)
    wide = [x.double().requires_grad_() for x in (observed, noise, drift)]
    wanted = kalman_reference(*wide, position)
    grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9))
    exact = torch.autograd.grad(wanted, wide, grad.double())
    estimate, variance = launch.kalman_forward(observed, noise, drift, position)
    assert error(estimate, wanted.detach()) < 1e-5
    found = launch.kalman_backward(grad, observed, noise, drift, position, estimate, variance)
    for name, value, of_reference in zip(("observed", "noise", "drift"), found, exact, strict=True):
        assert error(value, of_reference) < 1e-4, name


def test_the_extremes_stay_finite_and_nan_stays_in_its_channel() -> None:
    observed, noise, drift, position = case([60], 5)
    noise[:, :, 1], noise[:, :, 2] = 1e30, 1e-30
    observed[0, 40, 3] = float("nan")
    estimate, variance = launch.kalman_forward(observed, noise, drift, position)
    assert variance.isfinite().all()
    assert estimate[0, 40:, 3].isnan().all()
    estimate[0, 40:, 3] = 0
    assert estimate.isfinite().all()


def test_the_same_input_gives_the_same_bits() -> None:
    inputs = case([33], 5)
    first, second = launch.kalman_forward(*inputs), launch.kalman_forward(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_operator_keeps_torchs_rules() -> None:
    observed, noise, drift, position = case([5, 3], 2)
    inputs = (observed.requires_grad_(), noise.requires_grad_(), drift.requires_grad_(), position)
    torch.library.opcheck(library.kalman_filter_op, inputs)
    given = [x.detach() for x in inputs]
    found = library.kalman_filter_op(*given)
    torch.library.opcheck(library.kalman_filter_backward_op, (torch.ones_like(found[0]), *given, *found))


def test_the_public_call_gives_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    observed, noise, drift, position = case([5, 30], 3)
    found = []
    for has_kernels in (False, True):
        monkeypatch.setattr(library, "_has_kernels", lambda _, has=has_kernels: has)
        leaves = [x.clone().requires_grad_() for x in (observed, noise, drift)]
        estimate, state = kalman_filter(*leaves, position)
        grads = torch.autograd.grad(estimate.square().sum(), leaves)
        found.append((estimate.detach(), state.estimate_BD, state.variance_BD, *grads))
    for plain, by_kernels in zip(*found, strict=True):
        torch.testing.assert_close(by_kernels, plain, rtol=1e-4, atol=1e-5)


def test_the_route_says_what_runs_and_why() -> None:
    gpu = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
    assert route_kalman(gpu, dtype="bfloat16").implementation == "triton"
    assert route_kalman(gpu, dtype="float64").reason == "float64 is for references"
    assert route_kalman(Machine(device="cpu"), dtype="float32").implementation == "torch"
