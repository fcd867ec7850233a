"""The filter as associative scans in plain PyTorch, forward and backward: what runs on a CPU, and in float64.

Letters: B batch, T tokens, D channels. Autograd would keep each of the log2(T) rounds; the adjoint of either recursion
is one affine scan from the last token to the first, so only results are kept. README.md has the mathematics.
"""

import torch
from torch import Tensor

__all__ = ["plain_backward", "plain_forward"]

Matrix = tuple[Tensor, Tensor, Tensor, Tensor]


def plain_forward(
    observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Estimates and variances after each token, both (B, T, D), in float32 at least."""
    observed_BTD, noise_BTD, drift_D = _widened(observed_BTD, noise_BTD, drift_D)
    variance_BTD = _moebius_rounds(noise_BTD, drift_D, position_BT)
    gain_BTD, rest_BTD = _gains(variance_BTD, noise_BTD, drift_D, position_BT)
    return _affine_rounds(rest_BTD, gain_BTD * observed_BTD), variance_BTD


def plain_backward(
    grad_BTD: Tensor,
    observed_BTD: Tensor,
    noise_BTD: Tensor,
    drift_D: Tensor,
    position_BT: Tensor,
    estimate_BTD: Tensor,
    variance_BTD: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the observations, the noise and the drift, in the variances' dtype."""
    observed_BTD, noise_BTD, drift_D = _widened(observed_BTD, noise_BTD, drift_D)
    gain_BTD, rest_BTD = _gains(variance_BTD, noise_BTD, drift_D, position_BT)
    pull_BTD = _adjoint(rest_BTD, grad_BTD.to(variance_BTD.dtype))
    begins_BT1 = (position_BT == 0)[..., None]
    of_gain_BTD = pull_BTD * (observed_BTD - _shifted(estimate_BTD, 1, 0.0)) / noise_BTD
    of_gain_BTD = torch.where(begins_BT1, 0, of_gain_BTD)
    # What later tokens ask of each variance. Not the difference to a scan with this token's share: that cancels.
    slope_BTD = rest_BTD.square()
    push_BTD = _adjoint(slope_BTD, _before(slope_BTD * of_gain_BTD))
    of_noise_BTD = push_BTD * gain_BTD.square() - of_gain_BTD * gain_BTD * rest_BTD
    return pull_BTD * gain_BTD, of_noise_BTD, (slope_BTD * (of_gain_BTD + push_BTD)).sum((0, 1))


def _widened(observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(observed_BTD.dtype, torch.float32)
    return observed_BTD.to(wide), noise_BTD.to(wide), drift_D.to(wide)


def _gains(variance_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> tuple[Tensor, Tensor]:
    """g = P' / (P' + r) of each token and 1 - g, which is not computed by that difference; 1 and 0 at beginnings."""
    begins_BT1 = (position_BT == 0)[..., None]
    before_BTD = _shifted(variance_BTD, 1, 0.0) + drift_D
    total_BTD = before_BTD + noise_BTD
    return torch.where(begins_BT1, 1, before_BTD / total_BTD), torch.where(begins_BT1, 0, noise_BTD / total_BTD)


def _adjoint(keep_BTD: Tensor, grad_BTD: Tensor) -> Tensor:
    """a_t = grad_t + keep_(t+1) a_(t+1), from the last token to the first."""
    return _affine_rounds(_shifted(keep_BTD.flip(1), 1, 0.0), grad_BTD.flip(1)).flip(1)


def _before(x_BTD: Tensor) -> Tensor:
    """x[t + 1] at t, and 0 at the end."""
    return torch.cat([x_BTD[:, 1:], torch.zeros_like(x_BTD[:, :1])], 1)


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
