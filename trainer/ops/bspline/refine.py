"""Splines carried to another grid by least squares, so that training can start coarse and go on fine.

Letters: I inputs, O outputs, G cells, K = G + 3 coefficients of an edge, J = K + 1 weights of an edge, P pieces of the
interval on which both splines are polynomials, N = 4 P quadrature nodes, E edges (I * O).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .grid import SplineGrid
from .reference import dense_bases

# Four nodes integrate polynomials up to degree 7 exactly; squares of cubics have degree 6.
NODES = 4
# Edges looked at together when residuals are measured: 100 MB at most.
EDGES_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineResidual:
    """How far curves moved, in units of an edge's output, over the wider of the two grids."""

    rms: float
    """Root mean square over the interval and over all edges."""
    rms_worst_edge: float
    """The same of the edge that moved most."""
    largest: float
    """No curve moves by more than this anywhere: a bound, reached or nearly so."""


def refine(weight_JIO: Tensor, coarse: SplineGrid, fine: SplineGrid) -> tuple[Tensor, RefineResidual]:
    """The edges' curves on another grid, each the nearest in the mean square over the new grid's interval.

    Exact up to rounding when each cell of `fine` lies within one of `coarse`: the same limit and a multiple of the
    cells. The other way, from fine to coarse, works too and loses what the residual says. SiLU's row stays.

    Args:
        weight_JIO: (G + 4, ...), floating point, edges in any number of dims; G the cells of `coarse`.
        coarse: the grid of that weight.
        fine: the grid wanted.

    Returns:
        (G' + 4, ...) in the weight's dtype, computed in float64, and the residual, rounding to that dtype included.

    Raises:
        ValueError: a weight of another grid.
    """
    if weight_JIO.shape[0] != coarse.bases + 1:
        raise ValueError(f"wanted a weight of {coarse.bases + 1} rows, found {weight_JIO.shape[0]}")
    x_N, share_N = _quadrature(coarse, fine)
    old_NK, new_NK = dense_bases(x_N, coarse), dense_bases(x_N, fine)
    # Beyond the new grid both sides are multiplied by zero: nothing can be fitted there.
    root_N1 = (share_N * (x_N.abs() < fine.limit)).sqrt()[:, None]
    transfer_KK = torch.linalg.lstsq(root_N1 * new_NK, root_N1 * old_NK).solution
    coef_KE = weight_JIO[:-1].detach().flatten(1).double()
    fitted_KE = (transfer_KK.to(coef_KE.device) @ coef_KE).to(weight_JIO.dtype)
    moved_NK = torch.cat([new_NK, -old_NK], 1).to(coef_KE.device)
    residual = _measure(moved_NK, share_N.to(coef_KE.device), torch.cat([fitted_KE.double(), coef_KE]))
    fitted = fitted_KE.view(fine.bases, *weight_JIO.shape[1:])
    return torch.cat([fitted, weight_JIO[-1:].detach()]), residual


def _quadrature(coarse: SplineGrid, fine: SplineGrid) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes (N,) of all pieces of the wider interval, and the share of the interval each stands for."""
    borders = [torch.linspace(-g.limit, g.limit, g.cells + 1, dtype=torch.float64) for g in (coarse, fine)]
    ends_P = torch.cat(borders).sort().values
    # Borders that differ by rounding alone enclose nothing.
    ends_P = ends_P[torch.cat([torch.ones(1, dtype=torch.bool), ends_P.diff() > 1e-12 * ends_P[-1]])]
    place_4, weight_4 = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(NODES))
    width_P1 = ends_P.diff()[:, None]
    x_P4 = ends_P[:-1, None] + width_P1 * (place_4 + 1) / 2
    return x_P4.flatten(), (width_P1 / width_P1.sum() * weight_4 / 2).flatten()


def _measure(moved_NK: Tensor, share_N: Tensor, coef_KE: Tensor) -> RefineResidual:
    """The residual of curves whose differences at the nodes are moved_NK @ coef_KE."""
    squares, bounds = [coef_KE.new_zeros(1)], [0.0]
    hull_44 = _hull().to(coef_KE.device)
    for part_KE in torch.split(coef_KE, EDGES_AT_ONCE, dim=1):
        moved_NE = moved_NK @ part_KE
        squares.append(share_N @ moved_NE.square())
        # A polynomial lies within the hull of its Bernstein coefficients.
        bounds.append((hull_44 @ moved_NE.view(-1, NODES, moved_NE.shape[1])).abs().max().item())
    square_E = torch.cat(squares)
    return RefineResidual(
        rms=(square_E.sum() / coef_KE.shape[1]).sqrt().item(),
        rms_worst_edge=square_E.max().sqrt().item(),
        largest=max(bounds),
    )


def _hull() -> Tensor:
    """(4, 4): from a cubic's values at the nodes of a piece to its Bernstein coefficients there."""
    place_4, _ = np.polynomial.legendre.leggauss(NODES)
    t = torch.from_numpy((place_4 + 1) / 2)
    bernstein_44 = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    inverse_44: Tensor = torch.linalg.inv(bernstein_44)
    return inverse_44
