"""The Kalman filter of a layer's whole weight: recursive least squares, K = P H^T (H P H^T + R)^-1 with H its inputs.

P is the inverse of the inputs' second moment, which forgets; the innovation is the error that reaches the layer's
outputs, so the gain times the innovation is the gradient times P on the input side. Letters: S blocks of C inputs.
Source: MODEL.md section 8.
"""

from typing import Any

import torch
from torch import Tensor

from .moments import InputSide
from .muon import look_ahead
from .sharding import own_part, whole

# The root mean square of AdamW's directions, arXiv 2502.16982: one learning rate serves both.
DIRECTION_RMS = 0.2


def kalman_matrix_direction(
    group: dict[str, Any], part: Tensor, grad: Tensor, state: dict[str, Tensor], side: InputSide
) -> Tensor:
    """What the learning rate multiplies: the momentum times P, at a root mean square of 0.2; shaped like `part`.

    The error's scale is not known to the filter (the loss is no square), so the direction's size is fixed.
    """
    full = whole(look_ahead(grad, state, group["momentum"]), group["shape"])
    if "precision" in state:
        full = side.multiply(state["precision"], full)
    rms = full.square().mean().sqrt()
    return own_part(full * (DIRECTION_RMS / rms.clamp(min=group["eps"])), part)


def learn_moment(group: dict[str, Any], state: dict[str, Tensor], moment_SCC: Tensor, share: float) -> None:
    """Join a new second moment of the inputs to the kept one, of which `share` is forgotten, and give P anew.

    They are `moment` and `precision` in the state, (S, C, C).
    """
    if "moment" not in state:
        state["moment"] = moment_SCC.clone()
        state["precision"] = torch.empty_like(moment_SCC)
    state["moment"].lerp_(moment_SCC, share)
    state["precision"].copy_(precision(state["moment"], group["damping"]))


def precision(moment_SCC: Tensor, damping: float) -> Tensor:
    """P: the inverse of the moment, scaled to a mean diagonal of 1, plus `damping`, the measurement noise, times I."""
    mean = moment_SCC.diagonal(dim1=-2, dim2=-1).mean().clamp(min=torch.finfo(moment_SCC.dtype).tiny)
    unit_CC = torch.eye(moment_SCC.shape[-1], dtype=moment_SCC.dtype, device=moment_SCC.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(moment_SCC / mean + damping * unit_CC))
