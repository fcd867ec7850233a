"""B-spline bases and the edge layer in plain PyTorch with plain autograd: slow, obvious, and exact in float64.

Letters: ... any leading dims, I inputs, O outputs, G cells, K = G + 3 bases, J = K + 1 weights of an edge.
The mathematics is in README.md; what training runs is in features.py, tested against this file.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid import SplineGrid


def grid_coordinate(x: Tensor, grid: SplineGrid) -> tuple[Tensor, Tensor]:
    """The position of inputs in the grid, counted in cells from its left end, and which inputs lie outside.

    u is computed in float32, or float64 for float64 input: near 3, bfloat16 steps by 1/64, so rounding u itself to
    bfloat16 would put inputs into the wrong cell. Outside the grid u is 0, so that no later product meets an
    infinity; a NaN stays a NaN and counts as inside.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    u = (wide + grid.limit) * grid.cells_per_unit
    outside = (u < 0) | (u > grid.cells)
    return torch.where(outside, torch.zeros_like(u), u), outside


def dense_bases(x: Tensor, grid: SplineGrid) -> Tensor:
    """All K basis values of each input, shape (..., K), in float32 or float64; zero outside the grid.

    Written as differences of powers: ((2-t)+^3 - 4 (1-t)+^3) / 6 equals the two-piece formula and carries NaN.
    """
    u, outside = grid_coordinate(x, grid)
    centres = torch.arange(-1, grid.bases - 1, dtype=u.dtype, device=u.device)
    t = (u[..., None] - centres).abs()
    values = ((2 - t).relu() ** 3 - 4 * (1 - t).relu() ** 3) / 6
    return torch.where(outside[..., None], torch.zeros_like(values), values)


def cell_bases(x: Tensor, grid: SplineGrid) -> tuple[Tensor, Tensor]:
    """The four live basis values of each input, shape (..., 4), and the index m of the first, int64, shape (...).

    The right end of the grid belongs to the last cell (f = 1). Outside the grid all four values are zero and m is 0.
    """
    u, outside = grid_coordinate(x, grid)
    m = u.detach().nan_to_num(0.0).floor().clamp(max=grid.cells - 1)
    f = u - m
    values = torch.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], -1) / 6
    return torch.where(outside[..., None], torch.zeros_like(values), values), m.long()


def edge_linear_reference(x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid) -> Tensor:
    """y_no = sum_i [w_io silu(x_ni) + sum_k c_kio B_k(x_ni)], with c = weight[:K] and w = weight[K]; shape (N, O)."""
    bases_NIK = dense_bases(x_NI, grid)
    coef_KIO, silu_IO = weight_JIO[:-1], weight_JIO[-1]
    return torch.einsum("nik,kio->no", bases_NIK, coef_KIO) + F.silu(x_NI) @ silu_IO


def edge_linear_cell_reference(x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid) -> Tensor:
    """The same from the four live bases: only 4 + 1 of an edge's weights are read. Needs N * I * 4 * O values."""
    values_NI4, m_NI = cell_bases(x_NI, grid)
    rows_NI4 = m_NI[..., None] + torch.arange(4, device=x_NI.device)
    inputs_I1 = torch.arange(x_NI.shape[-1], device=x_NI.device)[:, None]
    coef_NI4O = weight_JIO[:-1][rows_NI4, inputs_I1]
    return torch.einsum("nij,nijo->no", values_NI4, coef_NI4O) + F.silu(x_NI) @ weight_JIO[-1]
