"""Muon's direction: the momentum of a weight's gradient, orthogonalised by torch's Newton-Schulz iteration.

Letters: E matrices of a weight, O and I their sides. Source: torch.optim.Muon; arXiv 2502.16982 for the scale.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from .sharding import own_part, whole


def muon_direction(group: dict[str, Any], part: Tensor, grad: Tensor, state: dict[str, Tensor]) -> Tensor:
    """What the learning rate multiplies, with the root mean square of AdamW's directions; shaped like `part`.

    The momentum is kept where the gradient is, on a shard if that is all there is; the iteration needs the whole.
    """
    ahead = look_ahead(grad, state, group["momentum"])
    # Sent in bfloat16, in which the iteration starts anyway.
    full = whole(ahead.bfloat16(), group["shape"]).float()
    count = math.prod(full.shape[: group["batch_dims"]])
    directions = [orthogonal(matrix_OI) for matrix_OI in full.reshape(count, -1, full.shape[-1])]
    return own_part(torch.stack(directions).view(group["shape"]), part)


def look_ahead(grad: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
    """Nesterov's momentum, a mean and not a sum: the running mean of the gradients, moved on towards this one."""
    if "momentum" not in state:
        state["momentum"] = torch.zeros_like(grad)
    state["momentum"].lerp_(grad, 1 - momentum)
    return grad.lerp(state["momentum"], momentum)


def orthogonal(matrix_OI: Tensor) -> Tensor:
    """The matrix with all singular values near 0.2 sqrt(max(O, I)), so that its root mean square is near 0.2.

    torch's Muon does it: one step at rate -1 from zero, without momentum of its own.
    """
    answer = nn.Parameter(torch.zeros_like(matrix_OI))
    answer.grad = -matrix_OI
    muon = torch.optim.Muon([answer], lr=1.0, weight_decay=0.0, momentum=0.0, adjust_lr_fn="match_rms_adamw")
    muon.step()  # type: ignore[no-untyped-call]
    return answer.detach()
