"""The Kalman filter as its recursion says it, one token after the other: slow, obvious, exact in float64."""

import torch
from torch import Tensor


def kalman_reference(observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> Tensor:
    """P' = P + q, g = P' / (P' + r), h = h + g (z - h), P = (1 - g) P'; a document's first token has g = 1."""
    estimate_BD = torch.zeros_like(observed_BTD[:, 0])
    variance_BD = torch.zeros_like(estimate_BD)
    outputs = []
    for t in range(observed_BTD.shape[1]):
        before_BD = variance_BD + drift_D
        begins_B1 = position_BT[:, t, None] == 0
        gain_BD = torch.where(begins_B1, 1, before_BD / (before_BD + noise_BTD[:, t]))
        estimate_BD = torch.where(begins_B1, observed_BTD[:, t], estimate_BD)
        estimate_BD = estimate_BD + gain_BD * (observed_BTD[:, t] - estimate_BD)
        variance_BD = torch.where(begins_B1, noise_BTD[:, t], (1 - gain_BD) * before_BD)
        outputs.append(estimate_BD)
    return torch.stack(outputs, 1)
