"""One query over a cache, as its formula says it. Slow, obvious, exact in float64."""

import torch
from torch import Tensor


def cached_attention_reference(
    q_BHC: Tensor, key_BHSC: Tensor, value_BHSV: Tensor, position_B: Tensor, scale: float
) -> Tensor:
    """y = sum over s <= p of softmax_s(q . k_s scale) v_s, (B, H, V)."""
    rows = []
    for q_HC, key_HSC, value_HSV, place in zip(q_BHC, key_BHSC, value_BHSV, position_B.tolist(), strict=True):
        score_HS = (key_HSC[:, : place + 1] @ q_HC[..., None])[..., 0] * scale
        rows.append((torch.softmax(score_HS, 1)[..., None] * value_HSV[:, : place + 1]).sum(1))
    return torch.stack(rows)
