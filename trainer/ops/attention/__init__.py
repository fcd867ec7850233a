"""Attention of one query over a cache whose filled part the device knows alone. README.md.

For decoding: no gradients. Letters: B rows, H heads, C channels of queries and keys, V of values, S slots.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..route import dtype_name, machine_of
from .route import route_cached_attention

__all__ = ["cached_attention"]


@torch.no_grad()
def cached_attention(q_BHC: Tensor, key_BHSC: Tensor, value_BHSV: Tensor, position_B: Tensor, scale: float) -> Tensor:
    """What each query takes from the slots up to its place, (B, H, V) in the values' dtype.

    Args:
        q_BHC: queries, of the keys' dtype.
        key_BHSC: keys; slot s holds place s, slots beyond the place hold anything finite.
        value_BHSV: values; V may differ from C.
        position_B: int64, the queries' places, 0 to S - 1.
        scale: what products of queries and keys are multiplied by.
    """
    route = route_cached_attention(machine_of(q_BHC.device), dtype=dtype_name(q_BHC))
    if route.implementation == "triton":
        from . import launch

        return launch.cached_attention(
            q_BHC.contiguous(), key_BHSC.contiguous(), value_BHSV.contiguous(), position_B, scale
        )
    visible_BS = torch.arange(key_BHSC.shape[2], device=q_BHC.device) <= position_B[:, None]
    mixed_BH1V = F.scaled_dot_product_attention(
        q_BHC[:, :, None], key_BHSC, value_BHSV, attn_mask=visible_BS[:, None, None], scale=scale
    )
    return mixed_BH1V[:, :, 0]
