"""Curves carried from one grid to another: exact where they can be, and never further off than the residual says."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.model.edge import EdgeLayer
from kanctl.trainer.ops.bspline import SplineGrid, edge_linear
from kanctl.trainer.ops.bspline.reference import dense_bases
from kanctl.trainer.ops.bspline.refine import refine


def weight_of(grid: SplineGrid, inputs: int = 3, outputs: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(grid.bases + 1, inputs, outputs, generator=generator, dtype=torch.float64)


def curves(x_N: Tensor, weight_JIO: Tensor, grid: SplineGrid) -> Tensor:
    """Each edge's spline at points, (N, I, O)."""
    return torch.einsum("nk,kio->nio", dense_bases(x_N, grid), weight_JIO[:-1])


def points(limit: float, count: int = 4001) -> Tensor:
    """Off the borders of cells, where rounding decides on which side of a jump a point lies."""
    step = 2 * limit / count
    return torch.linspace(-limit + 0.3 * step, limit - 0.4 * step, count, dtype=torch.float64)


@pytest.mark.parametrize(("cells", "limit"), [(1, 3.0), (5, 3.0), (4, 2.5)])
@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_a_multiple_of_the_cells_keeps_every_curve(cells: int, limit: float, factor: int) -> None:
    coarse, fine = SplineGrid(cells=cells, limit=limit), SplineGrid(cells=cells * factor, limit=limit)
    weight = weight_of(coarse)
    new, residual = refine(weight, coarse, fine)
    assert new.shape == (fine.bases + 1, 3, 4)
    assert residual.largest < 1e-12
    x = points(limit)
    torch.testing.assert_close(curves(x, new, fine), curves(x, weight, coarse), rtol=0, atol=1e-12)
    assert torch.equal(new[-1], weight[-1])
    inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(edge_linear(inputs, new, fine), edge_linear(inputs, weight, coarse), rtol=0, atol=1e-11)
    back, residual = refine(new, fine, coarse)
    torch.testing.assert_close(back, weight, rtol=0, atol=1e-10)
    assert residual.rms < 1e-11


PAIRS = [
    (SplineGrid(cells=5), SplineGrid(cells=13)),
    (SplineGrid(cells=13), SplineGrid(cells=5)),
    (SplineGrid(cells=5), SplineGrid(cells=7, limit=4.0)),
    (SplineGrid(cells=9, limit=4.0), SplineGrid(cells=5)),
]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_curves_move_as_far_as_the_residual_says(old: SplineGrid, new: SplineGrid) -> None:
    weight = weight_of(old)
    fitted, residual = refine(weight, old, new)
    x = points(max(old.limit, new.limit), 20011)
    moved = curves(x, fitted, new) - curves(x, weight, old)
    assert moved.abs().max().item() <= residual.largest * (1 + 1e-9)
    assert moved.abs().max().item() >= 0.7 * residual.largest > 1e-3
    assert moved.square().mean().sqrt().item() == pytest.approx(residual.rms, rel=1e-3)
    assert moved.square().mean(0).max().sqrt().item() == pytest.approx(residual.rms_worst_edge, rel=1e-3)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_no_other_curve_on_the_new_grid_is_nearer(old: SplineGrid, new: SplineGrid) -> None:
    weight = weight_of(old, 1, 1)
    fitted, _ = refine(weight, old, new)
    # Midpoints of steps whose borders include +-3 and +-4.
    x = (torch.arange(20_000, dtype=torch.float64) + 0.5) * (2 * new.limit / 20_000) - new.limit
    wanted = curves(x, weight, old)
    least = (curves(x, fitted, new) - wanted).square().mean()
    for coefficient in range(new.bases):
        for change in (-0.05, 0.05):
            other = fitted.clone()
            other[coefficient] += change
            assert (curves(x, other, new) - wanted).square().mean() > least


def test_more_cells_come_nearer() -> None:
    old = SplineGrid(cells=5)
    rms = [refine(weight_of(old), old, SplineGrid(cells=cells))[1].rms for cells in (6, 13, 27, 54)]
    assert rms == sorted(rms, reverse=True)
    assert rms[-1] < 0.1 * rms[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_to_the_weight_is_part_of_the_residual(dtype: torch.dtype) -> None:
    old, new = SplineGrid(cells=5), SplineGrid(cells=10)
    weight = weight_of(old).to(dtype)
    fitted, residual = refine(weight, old, new)
    assert fitted.dtype == dtype
    x = points(3.0)
    moved = (curves(x, fitted.double(), new) - curves(x, weight.double(), old)).abs().max().item()
    assert 0 < moved <= residual.largest <= 4 * torch.finfo(dtype).eps


def test_weights_of_any_number_of_edges_are_taken() -> None:
    old, new = SplineGrid(cells=5), SplineGrid(cells=13)
    weight = weight_of(old, 3, 4)
    flat, _ = refine(weight.flatten(1), old, new)
    torch.testing.assert_close(refine(weight, old, new)[0].flatten(1), flat, rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="wanted a weight of 9 rows, found 17"):
        refine(flat, old, new)


def test_a_layer_goes_on_with_a_finer_grid() -> None:
    layer = EdgeLayer(6, 5, SplineGrid(), "cell")
    layer.start(torch.Generator().manual_seed(2))
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(4))
    same, residual = layer.refined(15)
    torch.testing.assert_close(same(x), layer(x), rtol=0, atol=1e-5)
    assert same.grid == SplineGrid(cells=15)
    assert residual.largest < 1e-6
    other, residual = layer.refined(13)
    # An output is the sum of six curves, none of which moves by more.
    assert 0 < (other(x) - layer(x)).abs().max().item() <= 6 * residual.largest
    assert residual.largest > 1e-4
    other(x).sum().backward()
    assert other.weight_JIO.grad is not None
    assert other.form == "cell"
