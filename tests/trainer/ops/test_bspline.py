"""The edge layer against its reference, the reference against scipy, all in float64 where equality is meant."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import BSpline
from torch import Tensor

from kanctl.trainer.ops.bspline import EdgeForm, SplineGrid, edge_linear
from kanctl.trainer.ops.bspline.features import features
from kanctl.trainer.ops.bspline.reference import (
    cell_bases,
    dense_bases,
    edge_linear_cell_reference,
    edge_linear_reference,
)

GRIDS = [SplineGrid(cells=5), SplineGrid(cells=13), SplineGrid(cells=7, limit=2.5), SplineGrid(cells=1, limit=1.0)]
FORMS: list[EdgeForm] = ["dense", "cell"]

grids = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"G{grid.cells}")
forms = pytest.mark.parametrize("form", FORMS)


def sample_inputs(grid: SplineGrid, count: int, inputs: int) -> Tensor:
    """Random inputs (count, inputs) inside and outside the grid, with every cell border and both ends among them."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, inputs, generator=generator, dtype=torch.float64) * 0.6 * grid.limit
    borders = torch.linspace(-grid.limit, grid.limit, grid.cells + 1, dtype=torch.float64)
    special = torch.cat([borders, torch.tensor([-grid.limit - 0.01, grid.limit + 0.01, 1e30, -1e30])])
    x.view(-1)[: len(special)] = special[: x.numel()]
    return x


def random_weight(grid: SplineGrid, inputs: int, outputs: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(grid.bases + 1, inputs, outputs, generator=generator, dtype=torch.float64)


def scipy_bases(x: Tensor, grid: SplineGrid, derivative: int = 0) -> Tensor:
    """The bases by scipy on a uniform knot vector, shape (..., K); its NaN outside the grid is our zero."""
    step = 2 * grid.limit / grid.cells
    knots = -grid.limit + step * np.arange(-3, grid.cells + 4)
    spline = BSpline(knots, np.eye(grid.bases), 3, extrapolate=False)
    values = spline(x.numpy(), nu=derivative)
    return torch.from_numpy(np.nan_to_num(values))


@grids
def test_dense_bases_are_those_of_scipy(grid: SplineGrid) -> None:
    x = sample_inputs(grid, 37, 5)
    # scipy decides by its own knots whether a border input is inside; the ends have a test of their own.
    inside = x[(x.abs() - grid.limit).abs() > 1e-9]
    torch.testing.assert_close(dense_bases(inside, grid), scipy_bases(inside, grid), rtol=0, atol=1e-12)


@grids
def test_dense_base_derivatives_are_those_of_scipy(grid: SplineGrid) -> None:
    x = sample_inputs(grid, 37, 5)
    inside = x[(x.abs() - grid.limit).abs() > 1e-9].requires_grad_()
    for k in range(grid.bases):
        (slope,) = torch.autograd.grad(dense_bases(inside, grid)[:, k].sum(), inside)
        expected = scipy_bases(inside.detach(), grid, derivative=1)[:, k]
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-11)


@grids
def test_cell_bases_are_the_nonzero_dense_bases(grid: SplineGrid) -> None:
    x = sample_inputs(grid, 37, 5)
    values, m = cell_bases(x, grid)
    scattered = torch.zeros(*x.shape, grid.bases, dtype=torch.float64)
    scattered.scatter_(-1, m[..., None] + torch.arange(4), values)
    torch.testing.assert_close(scattered, dense_bases(x, grid), rtol=0, atol=1e-13)


@forms
@grids
def test_both_ends_belong_to_the_grid_and_the_next_number_does_not(grid: SplineGrid, form: EdgeForm) -> None:
    ends = torch.tensor([[-grid.limit, grid.limit]], dtype=torch.float64)
    beyond = torch.nextafter(ends, 2 * ends)
    at_ends = features(ends, grid, form)[0, :-1].T
    torch.testing.assert_close(at_ends[0, :3], torch.tensor([1, 4, 1], dtype=torch.float64) / 6)
    torch.testing.assert_close(at_ends[1, -3:], torch.tensor([1, 4, 1], dtype=torch.float64) / 6)
    assert not features(beyond * (1 + 1e-15), grid, form)[0, :-1].any()


@forms
@grids
def test_bases_sum_to_one_inside_the_grid(grid: SplineGrid, form: EdgeForm) -> None:
    x = torch.linspace(-grid.limit, grid.limit, 101, dtype=torch.float64)[:, None]
    torch.testing.assert_close(features(x, grid, form)[:, :-1].sum(1), torch.ones(101, 1, dtype=torch.float64))


@forms
@grids
def test_edge_linear_is_the_sum_over_scipy_splines_and_silu(grid: SplineGrid, form: EdgeForm) -> None:
    x = sample_inputs(grid, 29, 3)
    x = torch.where((x.abs() - grid.limit).abs() < 1e-9, 0.5 * x, x)
    weight = random_weight(grid, 3, 7)
    expected = torch.einsum("nik,kio->no", scipy_bases(x, grid), weight[:-1]) + F.silu(x) @ weight[-1]
    torch.testing.assert_close(edge_linear(x, weight, grid, form), expected, rtol=1e-12, atol=1e-11)


@forms
@grids
@pytest.mark.parametrize(("count", "inputs", "outputs"), [(1, 1, 1), (29, 3, 7), (17, 13, 5)])
def test_values_and_gradients_are_those_of_both_references(
    grid: SplineGrid, form: EdgeForm, count: int, inputs: int, outputs: int
) -> None:
    x = sample_inputs(grid, count, inputs).clamp(-10, 10)
    weight = random_weight(grid, inputs, outputs)
    upstream = torch.randn(count, outputs, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def run(call) -> tuple[Tensor, Tensor, Tensor]:
        a, w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = call(a, w)
        return y.detach(), *torch.autograd.grad(y, (a, w), upstream)

    ours = run(lambda a, w: edge_linear(a, w, grid, form))
    for reference in (edge_linear_reference, edge_linear_cell_reference):
        for found, expected in zip(ours, run(lambda a, w, f=reference: f(a, w, grid)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@forms
@grids
def test_gradients_are_the_slopes_of_the_values(grid: SplineGrid, form: EdgeForm) -> None:
    # Away from the two ends, where the spline part jumps to zero.
    x = (sample_inputs(grid, 7, 3).clamp(-1.5 * grid.limit, 1.5 * grid.limit)).reshape(-1)
    x = x[(x.abs() - grid.limit).abs() > 1e-3][:18].reshape(-1, 3).requires_grad_()
    weight = random_weight(grid, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, w: edge_linear(a, w, grid, form), (x, weight))


@forms
def test_only_the_gradients_asked_for_are_computed(form: EdgeForm) -> None:
    grid = SplineGrid()
    x, weight = torch.randn(4, 3), torch.randn(9, 3, 2)
    edge_linear(x, weight.requires_grad_(), grid, form).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


@forms
def test_outside_the_grid_only_silu_is_left(form: EdgeForm) -> None:
    grid = SplineGrid()
    x = torch.tensor([[3.5], [-4.0], [1e30]], dtype=torch.float64, requires_grad=True)
    weight = random_weight(grid, 1, 2)
    y = edge_linear(x, weight, grid, form)
    torch.testing.assert_close(y, F.silu(x) @ weight[-1])
    (slope,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad((F.silu(x) @ weight[-1]).sum(), x)
    torch.testing.assert_close(slope, expected)


@forms
def test_nan_reaches_its_own_row_and_no_other(form: EdgeForm) -> None:
    grid = SplineGrid()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.no_grad():
        x[2, 1] = torch.nan
    y = edge_linear(x, random_weight(grid, 3, 4).float(), grid, form)
    assert y[2].isnan().all()
    assert y[[0, 1, 3, 4]].isfinite().all()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad[2, 1].isnan()
    assert x.grad[[0, 1, 3, 4]].isfinite().all()


@forms
def test_infinity_never_crashes_nor_touches_other_rows(form: EdgeForm) -> None:
    x = torch.zeros(3, 2)
    x[0, 0], x[1, 0] = torch.inf, -torch.inf
    y = edge_linear(x, torch.ones(9, 2, 2), SplineGrid(), form)
    assert not y[:2].isfinite().any()
    assert y[2].isfinite().all()


@forms
@grids
def test_bfloat16_inputs_meet_the_bases_of_their_exact_value(grid: SplineGrid, form: EdgeForm) -> None:
    x = (torch.randn(200, 3, generator=torch.Generator().manual_seed(2)) * 1.5).bfloat16()
    exact = features(x.double(), grid, form)
    torch.testing.assert_close(features(x, grid, form).double(), exact, rtol=2**-8, atol=1e-6)


def test_a_grid_coordinate_in_bfloat16_would_be_wrong() -> None:
    """Why u is computed in float32: in bfloat16 some inputs fall into another cell and the values move by percents."""
    grid = SplineGrid(cells=13)
    x = (torch.randn(2000, 1, generator=torch.Generator().manual_seed(2))).clamp(-2.9, 2.9).bfloat16()
    naive_u = (x + grid.limit) * grid.cells_per_unit
    assert naive_u.dtype == torch.bfloat16
    exact_u = (x.double() + grid.limit) * grid.cells_per_unit
    assert (naive_u.double().floor() != exact_u.floor()).sum() > 10
    _, m = cell_bases(x, grid)
    assert torch.equal(m, exact_u.floor().long())


@forms
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_narrow_dtypes_stay_near_float64(form: EdgeForm, dtype: torch.dtype, tolerance: float) -> None:
    grid = SplineGrid()
    x = torch.randn(31, 13, generator=torch.Generator().manual_seed(4)).to(dtype).requires_grad_()
    weight = (random_weight(grid, 13, 7) / 13**0.5).to(dtype).requires_grad_()
    y = edge_linear(x, weight, grid, form)
    assert y.dtype == dtype
    y.backward(torch.ones_like(y))
    wide_x, wide_weight = (value.detach().double().requires_grad_() for value in (x, weight))
    wide_y = edge_linear_reference(wide_x, wide_weight, grid)
    wide_y.backward(torch.ones_like(wide_y))
    for found, exact in ((y, wide_y), (x.grad, wide_x.grad), (weight.grad, wide_weight.grad)):
        assert found is not None
        assert exact is not None
        assert found.dtype == dtype
        assert (found.double() - exact).norm() <= tolerance * exact.norm()


@forms
def test_leading_dimensions_are_kept_even_when_empty(form: EdgeForm) -> None:
    grid = SplineGrid()
    weight = random_weight(grid, 3, 4)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    flat = edge_linear(x.reshape(10, 3), weight, grid, form)
    assert torch.equal(edge_linear(x, weight, grid, form), flat.reshape(2, 5, 4))
    assert edge_linear(x[:0], weight, grid, form).shape == (0, 5, 4)


@forms
def test_the_same_input_gives_the_same_bits(form: EdgeForm) -> None:
    grid, x, weight = SplineGrid(), torch.randn(19, 3), torch.randn(9, 3, 4)
    assert torch.equal(edge_linear(x, weight, grid, form), edge_linear(x, weight, grid, form))


def test_wrong_shapes_and_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted a weight of shape \(9, 3, 'O'\), found \(8, 3, 2\)"):
        edge_linear(torch.zeros(2, 3), torch.zeros(8, 3, 2), SplineGrid())
    with pytest.raises(TypeError, match="wanted a weight of the input's dtype"):
        edge_linear(torch.zeros(2, 3), torch.zeros(9, 3, 2, dtype=torch.float64), SplineGrid())
    with pytest.raises(ValueError, match="wanted cells >= 1"):
        SplineGrid(cells=0)
