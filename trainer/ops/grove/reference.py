"""KalmaGrove as its formula says it: every subnet for every token, and a mask. Slow, obvious, exact in float64."""

from collections.abc import Callable

import torch
from torch import Tensor


def grove_reference(
    x_NI: Tensor,
    selector_ErI: Tensor,
    gate_EI: Tensor,
    gate_bias_E: Tensor,
    offset_E: Tensor,
    active: int,
    run: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """y = sum over the k largest s_e + b_e of sigmoid(w_e . x + g_e) s_e / (sum of the chosen s) * run(e, x)."""
    score_NE = torch.stack([(x_NI @ rows.T).norm(dim=1) / rows.norm() for rows in selector_ErI], 1)
    mask_NE = torch.zeros_like(score_NE)
    mask_NE.scatter_(1, (score_NE + offset_E).topk(active, dim=1).indices, 1.0)
    share_NE = mask_NE * score_NE / (mask_NE * score_NE).sum(1, keepdim=True)
    weight_NE = share_NE * torch.sigmoid(x_NI @ gate_EI.T + gate_bias_E)
    outputs_NEO = torch.stack([run(expert, x_NI) for expert in range(len(selector_ErI))], 1)
    return (weight_NE[..., None] * outputs_NEO).sum(1)
