"""Rotary positions: channel pairs of queries and keys turn with the place, so that products know the distance.

Letters: B batch, T tokens, H heads, C head size (even), P pairs (C / 2).
"""

import torch
from torch import Tensor

# Wavelengths of the rotary pairs run from 2 pi to nearly 2 pi times this (arXiv 2104.09864, section 3.4.3).
ROTARY_BASE = 10_000.0
Turns = tuple[Tensor, Tensor]


def rotary_turns(position: Tensor, head_size: int, like: Tensor) -> Turns:
    """Cosine and sine of each place and pair, each (..., P), in `like`'s dtype but float32 at least.

    Made anew in each forward pass: a buffer would be rounded when an engine casts the model to bfloat16.

    Args:
        position: (...), any number type; the centre of a block may lie between two tokens.
        head_size: C.
        like: a tensor of the dtype that is to be turned.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    pairs_P = torch.arange(0, head_size, 2, dtype=dtype, device=position.device)
    angles = position.to(dtype)[..., None] * ROTARY_BASE ** (-pairs_P / head_size)
    return angles.cos(), angles.sin()


def rotate(x_BHTC: Tensor, turns: Turns) -> Tensor:
    """Turn channel pairs (c, c + C/2) by their place's angle; lengths stay, products depend on distance only.

    Args:
        x_BHTC: (B, H, ..., C).
        turns: cosine and sine as rotary_turns gives them for places (B, ...), or (1, ...) for all rows.
    """
    cos, sin = (turn[:, None] for turn in turns)
    left, right = x_BHTC.to(cos.dtype).chunk(2, dim=-1)
    turned = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    return turned.to(x_BHTC.dtype)
