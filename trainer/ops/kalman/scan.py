"""The two recursions of the filter as associative scans, with backward passes that keep O(T): what training runs.

Letters: B batch, T tokens, D channels. Autograd would keep each of the log2(T) rounds; the adjoint of either recursion
is one affine scan from the last token to the first, so only results are kept. README.md has the mathematics.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["affine_scan", "gains", "variance_scan"]

Matrix = tuple[Tensor, Tensor, Tensor, Tensor]


def affine_scan(keep_BTD: Tensor, add_BTD: Tensor) -> Tensor:
    """h_t = keep_t h_(t-1) + add_t from h = 0, (B, T, D), in log2(T) rounds; differentiable once."""
    scanned: Tensor = _AffineScan.apply(keep_BTD, add_BTD)  # type: ignore[no-untyped-call]
    return scanned


def variance_scan(noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> Tensor:
    """P after each observation, (B, T, D); r where the position is 0; differentiable once in noise and drift."""
    scanned: Tensor = _VarianceScan.apply(noise_BTD, drift_D, position_BT)  # type: ignore[no-untyped-call]
    return scanned


def gains(variance_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> tuple[Tensor, Tensor]:
    """g = P' / (P' + r) of each token and 1 - g, which is not computed by that difference; 1 and 0 at beginnings."""
    begins_BT1 = (position_BT == 0)[..., None]
    before_BTD = _shifted(variance_BTD, 1, 0.0) + drift_D
    total_BTD = before_BTD + noise_BTD
    return torch.where(begins_BT1, 1, before_BTD / total_BTD), torch.where(begins_BT1, 0, noise_BTD / total_BTD)


class _AffineScan(torch.autograd.Function):
    """dadd_t = dh_t + keep_(t+1) dadd_(t+1), and dkeep_t = dadd_t h_(t-1)."""

    @staticmethod
    def forward(ctx: Any, keep_BTD: Tensor, add_BTD: Tensor) -> Tensor:
        estimate_BTD = _affine_rounds(keep_BTD, add_BTD)
        ctx.save_for_backward(keep_BTD, estimate_BTD)
        return estimate_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        keep_BTD, estimate_BTD = ctx.saved_tensors
        grad_add_BTD = _adjoint(keep_BTD, grads[0])
        return grad_add_BTD * _shifted(estimate_BTD, 1, 0.0), grad_add_BTD


class _VarianceScan(torch.autograd.Function):
    """With dP_t/dP_(t-1) = dP_t/dq = (1 - g_t)^2 and dP_t/dr_t = g_t^2 the adjoint is an affine scan too."""

    @staticmethod
    def forward(ctx: Any, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> Tensor:
        variance_BTD = _moebius_rounds(noise_BTD, drift_D, position_BT)
        ctx.save_for_backward(variance_BTD, noise_BTD, drift_D, position_BT)
        return variance_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        gain_BTD, rest_BTD = gains(*ctx.saved_tensors)
        slope_BTD = rest_BTD.square()
        pull_BTD = _adjoint(slope_BTD, grads[0])
        return pull_BTD * gain_BTD.square(), (pull_BTD * slope_BTD).sum((0, 1)), None


def _adjoint(keep_BTD: Tensor, grad_BTD: Tensor) -> Tensor:
    """a_t = grad_t + keep_(t+1) a_(t+1), from the last token to the first."""
    return _affine_rounds(_shifted(keep_BTD.flip(1), 1, 0.0), grad_BTD.flip(1)).flip(1)


def _affine_rounds(keep_BTD: Tensor, add_BTD: Tensor) -> Tensor:
    """Each map h -> keep h + add composed with all before it, in log2(T) rounds."""
    reach = 1
    while reach < keep_BTD.shape[1]:
        add_BTD = add_BTD + keep_BTD * _shifted(add_BTD, reach, 0.0)
        keep_BTD = keep_BTD * _shifted(keep_BTD, reach, 1.0)
        reach *= 2
    return add_BTD


def _moebius_rounds(noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> Tensor:
    """P -> r (P + q) / (P + q + r) is a Moebius map, so maps compose as 2 x 2 matrices.

    A document's first token maps every P to r. All entries are at least 0, so nothing cancels.
    """
    begins_BT1 = (position_BT == 0)[..., None]
    one = torch.ones_like(noise_BTD)
    # [[r, r q], [1, q + r]] divided by 1 + r, so that not even the first product overflows.
    share_BTD, unit_BTD = noise_BTD / (1 + noise_BTD), one / (1 + noise_BTD)
    matrix: Matrix = (
        torch.where(begins_BT1, 0, share_BTD),
        torch.where(begins_BT1, share_BTD, share_BTD * drift_D),
        torch.where(begins_BT1, 0, unit_BTD),
        torch.where(begins_BT1, unit_BTD, unit_BTD * drift_D + share_BTD),
    )
    reach = 1
    while reach < noise_BTD.shape[1]:
        composed = _scaled(_product(matrix, tuple(_shifted(part, reach, 0.0) for part in matrix)))
        # Not with another document's maps, although a constant one swallows them: their rounding would stay.
        goes_on_BT1 = (position_BT >= reach)[..., None]
        a, b, c, d = (torch.where(goes_on_BT1, new, old) for new, old in zip(composed, matrix, strict=True))
        matrix = (a, b, c, d)
        reach *= 2
    return matrix[1] / matrix[3]


def _product(left: Matrix, right: tuple[Tensor, ...]) -> Matrix:
    a, b, c, d = left
    e, f, g, h = right
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


def _scaled(matrix: Matrix) -> Matrix:
    """The same map with entries near one."""
    a, b, c, d = matrix
    # Where no map was composed all entries are zero, and nobody reads them.
    factor = 1 / (a + b + c + d).clamp(min=torch.finfo(a.dtype).tiny)
    return a * factor, b * factor, c * factor, d * factor


def _shifted(x_BTD: Tensor, by: int, fill: float) -> Tensor:
    """x[t - by] at t, and `fill` where that is before the row."""
    return torch.cat([torch.full_like(x_BTD[:, :by], fill), x_BTD[:, :-by]], 1)
