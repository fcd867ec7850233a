"""Causal softmax attention with rotary positions.

Letters: B batch, T tokens, D width, H heads, C head size (D / H, even).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model_config import ModelConfig

# Wavelengths of the rotary pairs run from 2 pi to nearly 2 pi times this (arXiv 2104.09864, section 3.4.3).
ROTARY_BASE = 10_000.0


def rotary_turns(tokens: int, head_size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position and pair, each (T, C / 2), in float32 at least, on the device of `like`.

    Made anew in each forward pass: a buffer would be rounded when an engine casts the model to bfloat16.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    pairs = torch.arange(0, head_size, 2, dtype=dtype, device=like.device)
    positions = torch.arange(tokens, dtype=dtype, device=like.device)
    angles = torch.outer(positions, ROTARY_BASE ** (-pairs / head_size))
    return angles.cos(), angles.sin()


def rotate(x_BHTC: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Turn channel pairs (c, c + C/2) by their position's angle; lengths stay, products depend on distance only."""
    cos_TP, sin_TP = turns
    left, right = x_BHTC.to(cos_TP.dtype).chunk(2, dim=-1)
    turned = torch.cat([left * cos_TP - right * sin_TP, right * cos_TP + left * sin_TP], dim=-1)
    return turned.to(x_BHTC.dtype)


class CausalAttention(nn.Module):
    """Each token looks at itself and earlier ones; PyTorch picks the fused kernel.

    A sequence may hold the end of one document and the start of the next: tokens do see across the mark.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights that keep the variance; the output's are scaled by `output_scale`."""
        spread = self.out.in_features**-0.5
        self.qkv.weight.normal_(0, spread, generator=generator)
        self.out.weight.normal_(0, spread * output_scale, generator=generator)

    def forward(self, x_BTD: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """What to add to the residual stream, (B, T, D); `turns` as rotary_turns gives them for T tokens."""
        qkv = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1))
        q_BHTC, k_BHTC, v_BHTC = qkv.permute(2, 0, 3, 1, 4)
        mixed_BHTC = F.scaled_dot_product_attention(
            rotate(q_BHTC, turns), rotate(k_BHTC, turns), v_BHTC, is_causal=True
        )
        out: Tensor = self.out(mixed_BHTC.transpose(1, 2).flatten(2))
        return out
