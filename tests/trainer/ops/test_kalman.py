"""The Kalman filter: its scan is its recursion, with every gradient, and its steps go on from it."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from kanctl.trainer.ops.kalman import KalmanState, kalman_filter, kalman_step
from kanctl.trainer.ops.kalman.reference import kalman_reference


def positions(*lengths: int) -> Tensor:
    """One row of documents with so many tokens."""
    return torch.tensor([[place for length in lengths for place in range(length)]])


def inputs(tokens: int, channels: int = 3, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(tokens)
    observed = torch.randn(batch, tokens, channels, dtype=torch.float64)
    noise = torch.rand(batch, tokens, channels, dtype=torch.float64) * 3 + 1e-3
    return observed.requires_grad_(), noise.requires_grad_(), torch.rand(channels).double().requires_grad_()


@pytest.mark.parametrize("lengths", [[1], [2], [13], [1, 1, 5], [8, 25]], ids=str)
def test_the_scan_gives_values_and_gradients_of_the_recursion(lengths) -> None:
    made, place = inputs(sum(lengths)), positions(*lengths)
    found, _ = kalman_filter(*made, place)
    wanted = kalman_reference(*made, place)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, made, pull, allow_unused=True),
        torch.autograd.grad(wanted, made, pull, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    assert gradcheck(lambda *x: kalman_filter(*x, positions(2, 4))[0], inputs(6, 2))


@pytest.mark.parametrize("split", [1, 6, 11])
def test_steps_go_on_from_the_scan(split: int) -> None:
    observed, noise, drift = (x.detach() for x in inputs(12))
    place = positions(4, 8)
    wanted, last = kalman_filter(observed, noise, drift, place)
    _, state = kalman_filter(observed[:, :split], noise[:, :split], drift, place[:, :split])
    for t in range(split, 12):
        out, state = kalman_step(observed[:, t], noise[:, t], drift, place[:, t], state)
        torch.testing.assert_close(out, wanted[:, t], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.variance_BD, last.variance_BD, rtol=1e-12, atol=1e-12)


def test_a_document_that_begins_believes_its_first_observation() -> None:
    observed, noise, drift = (x.detach() for x in inputs(1))
    before = KalmanState(estimate_BD=torch.full((1, 3), 9.0).double(), variance_BD=torch.full((1, 3), 9.0).double())
    out, state = kalman_step(observed[:, 0], noise[:, 0], drift, torch.tensor([0]), before)
    assert torch.equal(out, observed[:, 0])
    assert torch.equal(state.variance_BD, noise[:, 0])


@pytest.mark.parametrize(("noise", "drift"), [(1e-6, 10.0), (1e6, 1e-6), (1.0, 0.0), (1e30, 1.0)])
def test_long_sequences_stay_finite_and_near_the_recursion(noise: float, drift: float) -> None:
    observed = torch.randn(1, 20_000, 1, generator=torch.Generator().manual_seed(1))
    place = torch.arange(20_000)[None]
    found, _ = kalman_filter(observed, torch.full_like(observed, noise), torch.tensor([drift]), place)
    wide = [observed.double(), torch.full_like(observed, noise).double(), torch.tensor([drift]).double()]
    wanted = kalman_reference(*wide, place)
    assert ((found - wanted).norm() / wanted.norm()).item() < 1e-4


def test_without_drift_the_estimate_is_the_mean() -> None:
    observed, _, _ = inputs(9)
    found, _ = kalman_filter(observed, torch.ones_like(observed), torch.zeros(3).double(), positions(9))
    torch.testing.assert_close(found[:, -1], observed.mean(1))


def test_bfloat16_is_filtered_in_float32() -> None:
    observed, noise, drift = (x.detach() for x in inputs(50))
    found, _ = kalman_filter(observed.bfloat16(), noise.bfloat16(), drift, positions(50))
    assert found.dtype == torch.float32
    wanted = kalman_reference(observed, noise, drift, positions(50))
    assert (found - wanted).norm() / wanted.norm() < 0.02


def test_what_is_kept_for_gradients_does_not_grow_with_the_rounds() -> None:
    kept: list[int] = []

    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    made = inputs(1024)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        kalman_filter(*made, positions(1024))
    # Autograd through the rounds of the scans would keep 243 times the observations.
    assert sum(kept) < 15 * made[0].numel()


def test_gradients_of_long_sequences_are_finite_and_near_those_of_the_recursion_in_float32() -> None:
    wide, place = inputs(2_000, 2), positions(700, 1_300)
    narrow = [x.detach().float().requires_grad_() for x in wide]
    pull = torch.randn(1, 2_000, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = torch.autograd.grad(kalman_reference(*wide, place), wide, pull)
    found = torch.autograd.grad(kalman_filter(*narrow, place)[0], narrow, pull.float())
    for one, other in zip(found, wanted, strict=True):
        assert ((one - other).norm() / other.norm()).item() < 1e-4


def test_the_filter_is_one_graph_for_the_compiler_forward_and_backward() -> None:
    made, place = inputs(13), positions(4, 9)
    whole = torch.compile(lambda *x: kalman_filter(*x)[0], backend="aot_eager", fullgraph=True)
    wanted = torch.autograd.grad(kalman_filter(*made, place)[0].square().sum(), made)
    found = torch.autograd.grad(whole(*made, place).square().sum(), made)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
