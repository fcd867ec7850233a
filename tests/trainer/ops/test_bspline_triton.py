"""The edge layer's Triton kernels, in the interpreter where there is no GPU, against the float64 reference.

In float32: the interpreter's product of bfloat16 is wrong without a word. tests/gpu has bfloat16.
"""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.bspline import SplineGrid, launch, slab
from kanctl.trainer.ops.bspline.features import features
from kanctl.trainer.ops.bspline.reference import edge_linear_reference

# The interpreter computes with numpy, which warns where a GPU gives the wanted infinity or NaN.
pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]

GRIDS = [SplineGrid(cells=5), SplineGrid(cells=13), SplineGrid(cells=2, limit=1.5)]
# Tokens, inputs, outputs: nothing a multiple of a tile, one of each, and more than one tile of each.
SIZES = [(1, 1, 1), (7, 5, 3), (70, 33, 40), (150, 70, 130)]

grids = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"G{grid.cells}")
sizes = pytest.mark.parametrize(("tokens", "inputs", "outputs"), SIZES)


def case(tokens: int, inputs: int, outputs: int, grid: SplineGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs with cell borders, ends and values far outside among them, a weight and a gradient, all in float32."""
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, inputs, generator=generator) * 0.6 * grid.limit
    borders = torch.linspace(-grid.limit, grid.limit, grid.cells + 1)
    special = torch.cat([borders, torch.tensor([-grid.limit * 1.01, grid.limit * 1.01, 1e30, -1e30])])
    kept = special[: x.numel() // 2]
    x.view(-1)[: len(kept)] = kept
    weight = torch.randn(grid.bases + 1, inputs, outputs, generator=generator)
    return x, weight, torch.randn(tokens, outputs, generator=generator)


def wanted(x: Tensor, weight: Tensor, grad: Tensor, grid: SplineGrid) -> tuple[Tensor, Tensor, Tensor]:
    wide_x, wide_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = edge_linear_reference(wide_x, wide_weight, grid)
    y.backward(grad.double())  # type: ignore[no-untyped-call]
    assert wide_x.grad is not None
    assert wide_weight.grad is not None
    return y.detach(), wide_x.grad, wide_weight.grad


def error(found: Tensor, reference: Tensor) -> float:
    """Relative, in the Frobenius norm, with the borders' jumps left out of account by the caller."""
    return float((found.double() - reference).norm() / reference.norm().clamp(min=1e-30))


def inside(x: Tensor, grid: SplineGrid) -> Tensor:
    """Inputs at which float32 and float64 agree on whether they are within the grid: the ends may differ."""
    return (x.abs() - grid.limit).abs() > 1e-5


@grids
@sizes
def test_features_are_those_of_plain_pytorch(tokens: int, inputs: int, outputs: int, grid: SplineGrid) -> None:
    x, _, _ = case(tokens, inputs, outputs, grid)
    # Rows of a part of the columns lie apart.
    wide = torch.cat([x, x], 1)[:, :inputs]
    torch.testing.assert_close(launch.expand(wide, grid), features(x, grid, "dense"), rtol=1e-6, atol=1e-6)


@grids
@sizes
def test_values_and_gradients_are_those_of_the_reference(
    tokens: int, inputs: int, outputs: int, grid: SplineGrid
) -> None:
    x, weight, grad = case(tokens, inputs, outputs, grid)
    y, dx, dw = wanted(x, weight, grad, grid)
    assert error(launch.forward(x, weight, grid), y) < 2e-6
    assert error(launch.gather(x[:3], weight, grid), y[:3]) < 2e-6
    assert error(launch.input_gradient(x, weight, grad, grid), dx) < 2e-6
    assert error(launch.weight_gradient(x, grad, grid), dw) < 2e-6


@grids
@sizes
def test_slabs_of_the_kernels_give_the_same(tokens: int, inputs: int, outputs: int, grid: SplineGrid) -> None:
    x, weight, grad = case(tokens, inputs, outputs, grid)
    y, dx, dw = wanted(x, weight, grad, grid)
    features_count = grid.bases + 1

    def contract(x: Tensor, grad: Tensor, out: Tensor) -> Tensor:
        return launch.contract(x, grad, out, grid)

    for slab_bytes in (1, 200_000, 1 << 30):
        expand = lambda x: launch.expand(x, grid)  # noqa: E731
        assert error(slab.forward(x, weight, expand, slab_bytes), y) < 2e-6
        assert error(slab.input_gradient(x, weight, grad, contract, slab_bytes), dx) < 2e-6
        assert error(slab.weight_gradient(x, grad, features_count, expand, slab_bytes), dw) < 2e-6


def test_no_token_gives_an_empty_output_and_a_gradient_of_zero() -> None:
    grid = GRIDS[0]
    x, weight, grad = torch.empty(0, 5), torch.randn(9, 5, 3), torch.empty(0, 3)
    assert launch.forward(x, weight, grid).shape == (0, 3)
    assert launch.input_gradient(x, weight, grad, grid).shape == (0, 5)
    assert not launch.weight_gradient(x, grad, grid).any()


def test_nan_reaches_its_own_row_and_no_other_and_infinity_never_crashes() -> None:
    grid = GRIDS[0]
    x, weight, grad = case(70, 33, 40, grid)
    x[3, 4], x[9, 1] = float("nan"), float("inf")
    y, dx = launch.forward(x, weight, grid), launch.input_gradient(x, weight, grad, grid)
    assert y[3].isnan().all()
    assert dx[3, 4].isnan()
    others = [row for row in range(70) if row not in (3, 9)]
    assert y[others].isfinite().all()
    few = launch.gather(x[:10], weight, grid)
    assert few[3].isnan().all()
    assert torch.equal(few[9], y[9]) or not few[9].isfinite().any()
    assert few[:3].isfinite().all()
    assert dx[others].isfinite().all()
    assert launch.expand(x, grid)[3, :, 4].isnan().all()
    dw = launch.weight_gradient(x, grad, grid)
    assert dw[:, 4].isnan().all()
    assert dw[:, [0, 2, 3, 5]].isfinite().all()


def test_the_same_input_gives_the_same_bits() -> None:
    grid = GRIDS[0]
    x, weight, grad = case(150, 70, 130, grid)
    for call in (
        lambda: launch.forward(x, weight, grid),
        lambda: launch.input_gradient(x, weight, grad, grid),
        lambda: launch.weight_gradient(x, grad, grid),
    ):
        assert torch.equal(call(), call())


# Where the rows of each group end: one row; empty groups at either end and between; more rows than a tile; all to one.
ENDS = [[1], [0, 1, 1], [0, 3, 70, 70], [140, 141, 150], [0, 150, 150]]


@pytest.mark.parametrize("ends", ENDS, ids=str)
def test_rows_of_each_group_meet_their_own_weight(ends: list[int]) -> None:
    grid, ends_E = GRIDS[0], torch.tensor(ends, dtype=torch.int32)
    x, _, grad = case(ends[-1], 33, 40, grid)
    weight = torch.randn(len(ends), grid.bases + 1, 33, 40, generator=torch.Generator().manual_seed(7))
    parts = [slice(first, last) for first, last in zip([0, *ends], ends, strict=False)]
    each = [wanted(x[rows], weight[group], grad[rows], grid) for group, rows in enumerate(parts)]
    y, dx = torch.cat([part[0] for part in each]), torch.cat([part[1] for part in each])
    dw = torch.stack([part[2] for part in each])
    assert error(launch.forward(x, weight, grid, ends_E), y) < 2e-6
    assert error(launch.gather(x, weight, grid, ends_E), y) < 2e-6
    assert error(launch.input_gradient(x, weight, grad, grid, ends_E), dx) < 2e-6
    assert error(launch.weight_gradient(x, grad, grid, ends_E), dw) < 2e-6
