"""A Kalman filter of each channel along time: as an associative scan of whole sequences, and as one step. README.md.

Letters: B batch, T tokens, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KalmanState", "kalman_filter", "kalman_step"]

Matrix = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class KalmanState:
    """What a document leaves for its next token, in float32 at least."""

    estimate_BD: Tensor
    variance_BD: Tensor


def kalman_filter(
    observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor
) -> tuple[Tensor, KalmanState]:
    """The estimates after each observation, and the state after the last.

    Args:
        observed_BTD: z, floating point.
        noise_BTD: r > 0, the variance of each observation's noise.
        drift_D: q >= 0, by how much the variance of what is observed grows from one token to the next.
        position_BT: int64, places in documents; at a 0 nothing is known yet, so the estimate is the observation.

    Returns:
        (B, T, D) in float32, or float64 for float64 observations; O(T log T) work in log2(T) rounds.
    """
    wide = torch.promote_types(observed_BTD.dtype, torch.float32)
    observed_BTD, noise_BTD, drift_D = (x.to(wide) for x in (observed_BTD, noise_BTD, drift_D))
    begins_BT1 = (position_BT == 0)[..., None]
    variance_BTD = _variances(noise_BTD, drift_D, position_BT)
    # What is known before each observation; the first one of a document is all that is known.
    before_BTD = _shifted(variance_BTD, 1, 0.0) + drift_D
    gain_BTD = torch.where(begins_BT1, 1, before_BTD / (before_BTD + noise_BTD))
    estimate_BTD = _affine_scan(1 - gain_BTD, gain_BTD * observed_BTD)
    state = KalmanState(estimate_BD=estimate_BTD[:, -1].detach(), variance_BD=variance_BTD[:, -1].detach())
    return estimate_BTD, state


def kalman_step(
    observed_BD: Tensor, noise_BD: Tensor, drift_D: Tensor, position_B: Tensor, state: KalmanState
) -> tuple[Tensor, KalmanState]:
    """One more observation of each row: the estimate (B, D) and the next state. Arguments as kalman_filter's."""
    wide = state.estimate_BD.dtype
    observed_BD, noise_BD, drift_D = (x.to(wide) for x in (observed_BD, noise_BD, drift_D))
    begins_B1 = (position_B == 0)[:, None]
    before_BD = state.variance_BD + drift_D
    gain_BD = torch.where(begins_B1, 1, before_BD / (before_BD + noise_BD))
    kept_BD = torch.where(begins_B1, 0, state.estimate_BD)
    estimate_BD = kept_BD + gain_BD * (observed_BD - kept_BD)
    # (1 - g) P' = g r, which holds at a beginning too: P = r.
    return estimate_BD, KalmanState(estimate_BD=estimate_BD, variance_BD=gain_BD * noise_BD)


def _variances(noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> Tensor:
    """P after each observation: P -> r (P + q) / (P + q + r) is a Moebius map, so maps compose as 2 x 2 matrices.

    A document's first token maps every P to r. All entries are at least 0, so nothing cancels.
    """
    begins_BT1 = (position_BT == 0)[..., None]
    one = torch.ones_like(noise_BTD)
    matrix: Matrix = (
        torch.where(begins_BT1, 0, noise_BTD),
        torch.where(begins_BT1, noise_BTD, noise_BTD * drift_D),
        torch.where(begins_BT1, 0, one),
        torch.where(begins_BT1, one, noise_BTD + drift_D),
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
    """The same map with entries near one. The factor is a constant to gradients: a map does not depend on it."""
    a, b, c, d = matrix
    # Where no map was composed all entries are zero, and nobody reads them.
    factor = 1 / (a + b + c + d).detach().clamp(min=torch.finfo(a.dtype).tiny)
    return a * factor, b * factor, c * factor, d * factor


def _affine_scan(keep_BTD: Tensor, add_BTD: Tensor) -> Tensor:
    """h_t = keep_t h_(t-1) + add_t from h = 0: each map composed with all before it, in log2(T) rounds."""
    reach = 1
    while reach < keep_BTD.shape[1]:
        add_BTD = add_BTD + keep_BTD * _shifted(add_BTD, reach, 0.0)
        keep_BTD = keep_BTD * _shifted(keep_BTD, reach, 1.0)
        reach *= 2
    return add_BTD


def _shifted(x_BTD: Tensor, by: int, fill: float) -> Tensor:
    """x[t - by] at t, and `fill` where that is before the row."""
    return torch.cat([torch.full_like(x_BTD[:, :by], fill), x_BTD[:, :-by]], 1)
