"""The Kalman filter of single weights: one scalar filter follows each weight's gradient through its noise.

Where the noise rises the filter trusts new gradients less, where it falls more; AdamW's two means are the case of a
fixed gain. Source: MODEL.md section 8, the diagonal form.
"""

from typing import Any

import torch
from torch import Tensor


def kalman_diagonal_direction(group: dict[str, Any], part: Tensor, grad: Tensor, state: dict[str, Tensor]) -> Tensor:
    """What the learning rate multiplies: the filtered gradient over its size and noise, within [-1, 1].

    State, each shaped like `part`: `mean`, the estimate m; `variance`, its P; `noise`, the measurement's r. The process
    noise is the one whose steady gain is 1 - beta1; r follows the squared innovations at rate 1 - beta2.
    """
    if not state:
        state.update({name: torch.zeros_like(grad) for name in ("mean", "variance", "noise")})
    beta1, beta2 = group["betas"]
    mean, variance, noise = state["mean"], state["variance"], state["noise"]
    # A weight that had no gradient so far takes its first whole: its variance was infinite.
    is_new = noise == 0
    predicted = variance + noise * ((1 - beta1) ** 2 / beta1)
    gain = torch.where(is_new, 1.0, predicted / torch.where(is_new, 1.0, predicted + noise))
    innovation = grad - mean
    mean.addcmul_(gain, innovation)
    variance.copy_(predicted).mul_(1 - gain)
    # An innovation's variance is P' + r = r / (1 - gain).
    seen = innovation.square() * torch.where(is_new, 1.0, 1 - gain)
    noise.copy_(torch.where(is_new, seen, noise.lerp(seen, 1 - beta2)))
    scale = (mean.square() + noise).sqrt_()
    return mean / scale.clamp_(min=group["eps"])
