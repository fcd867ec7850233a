"""Causal attention with rotary positions, against the definition written out."""

import math

import torch

from kanctl.trainer.model.attention import CausalAttention, rotary_turns, rotate
from kanctl.trainer.model_config import ModelConfig

CONFIG = ModelConfig(layers=1, width=24, heads=3, context_tokens=11, hidden=8)


def test_attention_is_the_masked_softmax_of_rotated_products() -> None:
    attention = CausalAttention(CONFIG).double()
    attention.start(torch.Generator().manual_seed(1), 1.0)
    x = torch.randn(2, 11, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    turns = rotary_turns(11, 8, x)
    q, k, v = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in attention.qkv(x).chunk(3, -1))
    scores = rotate(q, turns) @ rotate(k, turns).transpose(-1, -2) / math.sqrt(8)
    scores = scores.masked_fill(torch.ones(11, 11).triu(1).bool(), -torch.inf)
    expected = attention.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, turns), expected, rtol=1e-12, atol=1e-12)


def test_rotary_products_depend_on_the_distance_only() -> None:
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turns = rotary_turns(20, 8, q)
    products = rotate(q.expand(20, 8), turns) @ rotate(k.expand(20, 8), turns).T
    for distance in (0, 1, 7):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=1e-12, atol=1e-12)
    assert (products.diagonal(1)[0] - products.diagonal(7)[0]).abs() > 1e-3


def test_rotary_angles_are_not_rounded_to_bfloat16() -> None:
    like = torch.zeros(1, dtype=torch.bfloat16)
    cos, _ = rotary_turns(600, 8, like)
    assert cos.dtype == torch.float32
    torch.testing.assert_close(cos[599, 0].item(), math.cos(599), rtol=0, atol=1e-4)
