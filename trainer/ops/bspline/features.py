"""What an edge layer multiplies with its weights, and the derivatives, without autograd: every step by hand.

Letters: N tokens, I inputs, K = G + 3 bases, J = K + 1 features of an input (the bases, then SiLU).
The layout (N, J, I) keeps inputs contiguous, so that every elementwise pass is a plain vector loop.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .grid import SplineGrid
from .reference import grid_coordinate

EdgeForm = Literal["dense", "cell"]


def features(x_NI: Tensor, grid: SplineGrid, form: EdgeForm) -> Tensor:
    """Bases and SiLU of each input, shape (N, J, I), in x's dtype; computed in float32 at least."""
    u_NI, outside_NI = grid_coordinate(x_NI, grid)
    n, i = x_NI.shape
    out_NJI = torch.empty((n, grid.bases + 1, i), dtype=u_NI.dtype, device=x_NI.device)
    bases_NKI = out_NJI[:, :-1]
    if form == "dense":
        t_NKI = _distance(u_NI, grid).abs_()
        near_NKI = (1 - t_NKI).clamp_(min=0)
        far_NKI = t_NKI.neg_().add_(2).clamp_(min=0)
        torch.sub(_cube(far_NKI), _cube(near_NKI), alpha=4, out=bases_NKI).div_(6)
        bases_NKI.masked_fill_(outside_NI[:, None], 0)
    else:
        rows_N4I, f_NI = _cell(u_NI, grid)
        g_NI = 1 - f_NI
        ends = (g_NI**3, f_NI**3)
        # The middle two are mirror images: 3f^3 - 6f^2 + 4 = 4 - 3 f^2 (2 - f).
        middle = (4 - 3 * f_NI**2 * (2 - f_NI), 4 - 3 * g_NI**2 * (2 - g_NI))
        values_N4I = torch.stack([ends[0], *middle, ends[1]], 1).div_(6)
        bases_NKI.zero_().scatter_(1, rows_N4I, values_N4I.masked_fill_(outside_NI[:, None], 0))
    out_NJI[:, -1] = F.silu(x_NI.to(u_NI.dtype))
    return out_NJI.to(x_NI.dtype)


def input_gradient(x_NI: Tensor, grad_NJI: Tensor, grid: SplineGrid, form: EdgeForm) -> Tensor:
    """The gradient of x from the gradient of its features: sum over j of grad * d feature / dx, in x's dtype."""
    u_NI, outside_NI = grid_coordinate(x_NI, grid)
    grad_NJI = grad_NJI.to(u_NI.dtype)
    grad_NKI = grad_NJI[:, :-1]
    if form == "dense":
        v_NKI = _distance(u_NI, grid)
        t_NKI = v_NKI.abs()
        slope_NKI = (1 - t_NKI).clamp_(min=0).square_().mul_(4) - (2 - t_NKI).clamp_(min=0).square_()
        spline_NI = slope_NKI.mul_(v_NKI.sign_()).mul_(grad_NKI).sum(1)
    else:
        rows_N4I, f_NI = _cell(u_NI, grid)
        slopes = (-((1 - f_NI) ** 2), 3 * f_NI**2 - 4 * f_NI, -3 * f_NI**2 + 2 * f_NI + 1, f_NI**2)
        spline_NI = (torch.stack(slopes, 1) * grad_NKI.gather(1, rows_N4I)).sum(1)
    spline_NI.mul_(grid.cells_per_unit / 2).masked_fill_(outside_NI, 0)
    wide_NI = x_NI.to(u_NI.dtype)
    gate_NI = torch.sigmoid(wide_NI)
    return (spline_NI + grad_NJI[:, -1] * gate_NI * (1 + wide_NI * (1 - gate_NI))).to(x_NI.dtype)


def _distance(u_NI: Tensor, grid: SplineGrid) -> Tensor:
    """Signed distance of each input from each base's centre, in cells, shape (N, K, I)."""
    centres_K = torch.arange(-1, grid.bases - 1, dtype=u_NI.dtype, device=u_NI.device)
    return u_NI[:, None] - centres_K[:, None]


def _cell(u_NI: Tensor, grid: SplineGrid) -> tuple[Tensor, Tensor]:
    """The four live rows of each input, int64, shape (N, 4, I), and the place in the cell, 0 to 1, shape (N, I)."""
    m_NI = u_NI.nan_to_num(0.0).floor_().clamp_(max=grid.cells - 1)
    steps_4 = torch.arange(4, device=u_NI.device)
    return m_NI.long()[:, None] + steps_4[:, None], u_NI - m_NI


def _cube(x: Tensor) -> Tensor:
    return x.square().mul_(x)
