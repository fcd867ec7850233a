"""The one loss of training and evaluation."""

import torch
import torch.nn.functional as F
from torch import Tensor


def next_token_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Mean cross entropy in nats per token, a scalar in float32 (float64 for float64 logits).

    Args:
        logits_BTV: floating point; position t predicts targets[:, t].
        targets_BT: int64, the input shifted by one.
    """
    wide = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    return F.cross_entropy(wide.flatten(0, 1), targets_BT.flatten())
