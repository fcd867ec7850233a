"""Arnold diffusion attention as its formula says it: the direct form, quadratic, slow, obvious, exact in float64.

Letters: B batch, H heads, T tokens, C head size, W taps. README.md has the mathematics.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def diffuse_reference(k_BHTC: Tensor, taps_HCW: Tensor, position_BT: Tensor) -> Tensor:
    """k~_t = sum over j < W of a_j k_(t-j), without what lies before the document's start."""
    out_BHTC = torch.zeros_like(k_BHTC)
    for t in range(k_BHTC.shape[2]):
        for j in range(min(taps_HCW.shape[-1], t + 1)):
            inside_B11 = (position_BT[:, t] >= j)[:, None, None]
            out_BHTC[:, :, t] = out_BHTC[:, :, t] + inside_B11 * taps_HCW[..., j] * k_BHTC[:, :, t - j]
    return out_BHTC


def ada_reference(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, taps_HCW: Tensor, log_decay_BHT: Tensor, position_BT: Tensor
) -> Tensor:
    """o_t = C^-1/2 sum over s <= t of [f(q_t) . f(k~_s)] v_s exp(sum of log decay over s < r <= t), in one document."""
    tokens = q_BHTC.shape[2]
    index_T = torch.arange(tokens)
    passed_BHT = log_decay_BHT.cumsum(2)
    weight_BHTT = (passed_BHT[..., None] - passed_BHT[..., None, :]).tril().exp()
    first_BT1 = (index_T - position_BT)[..., None]
    visible_BTT = (first_BT1 <= index_T) & (index_T <= index_T[:, None])
    key_BHTC = F.silu(diffuse_reference(k_BHTC, taps_HCW, position_BT))
    score_BHTT = F.silu(q_BHTC) @ key_BHTC.transpose(2, 3) * weight_BHTT * visible_BTT[:, None]
    out_BHTC: Tensor = score_BHTT @ v_BHTC * q_BHTC.shape[-1] ** -0.5
    return out_BHTC
