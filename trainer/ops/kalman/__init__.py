"""A Kalman filter of each channel along time: as an associative scan of whole sequences, and as one step. README.md.

Letters: B batch, T tokens, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .library import kalman_filter_op

__all__ = ["KalmanState", "kalman_filter", "kalman_step"]


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
        (B, T, D) in float32, or float64 for float64 observations, in O(T) memory. Gradients are of first order only:
        asking for second ones is an error.
    """
    position_BT = position_BT.expand(observed_BTD.shape[:2])
    inputs = (observed_BTD, noise_BTD, drift_D, position_BT)
    estimate_BTD, variance_BTD = kalman_filter_op(*(x.contiguous() for x in inputs))
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
