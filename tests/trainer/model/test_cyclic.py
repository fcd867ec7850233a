"""Cyclic layers: f(g x) = g f(x) as an identity, with as many fewer weights."""

import pytest
import torch
from torch import nn

from kanctl.trainer.model.cyclic import CyclicEdge, CyclicLinear, circulant, shift
from kanctl.trainer.ops.bspline import SplineGrid


def layer(kind: str, inputs: int, outputs: int, order: int) -> nn.Module:
    made = CyclicEdge(inputs, outputs, order, SplineGrid()) if kind == "edge" else CyclicLinear(inputs, outputs, order)
    made.start(torch.Generator().manual_seed(1))
    return made


@pytest.mark.parametrize("kind", ["linear", "edge"])
@pytest.mark.parametrize(("inputs", "outputs", "order"), [(12, 8, 4), (6, 9, 3), (5, 5, 5), (4, 6, 1)])
def test_shifting_inputs_shifts_outputs(kind: str, inputs: int, outputs: int, order: int) -> None:
    made = layer(kind, inputs, outputs, order).double()
    x = torch.randn(7, inputs, dtype=torch.float64)
    for by in range(order):
        torch.testing.assert_close(made(shift(x, order, by)), shift(made(x), order, by), rtol=1e-12, atol=1e-12)


def test_a_plain_layer_does_not_shift() -> None:
    plain, x = nn.Linear(12, 8).double(), torch.randn(7, 12).double()
    assert not torch.allclose(plain(shift(x, 4)), shift(plain(x), 4))


@pytest.mark.parametrize(("kind", "whole"), [("linear", 12 * 8), ("edge", 9 * 12 * 8)])
def test_the_order_divides_the_weights(kind: str, whole: int) -> None:
    assert sum(weight.numel() for weight in layer(kind, 12, 8, 4).parameters()) == whole // 4


def test_blocks_are_circulant() -> None:
    whole_IO = circulant(torch.tensor([[[1.0, 2.0, 3.0]]]))
    assert whole_IO.tolist() == [[1, 2, 3], [3, 1, 2], [2, 3, 1]]


@pytest.mark.parametrize("kind", ["linear", "edge"])
def test_the_start_keeps_the_variance(kind: str) -> None:
    out = layer(kind, 240, 200, 4)(torch.randn(2000, 240, generator=torch.Generator().manual_seed(3)))
    assert 0.8 < out.var().item() < 1.25


@pytest.mark.parametrize("kind", ["linear", "edge"])
def test_channels_that_do_not_divide_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="wanted inputs and outputs divisible by the order 4, found 12 and 6"):
        layer(kind, 12, 6, 4)
