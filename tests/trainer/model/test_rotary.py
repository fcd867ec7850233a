"""Rotary positions: products know the distance only, and angles are exact enough."""

import math

import torch

from kanctl.trainer.model.rotary import rotary_turns, rotate


def test_rotary_products_depend_on_the_distance_only() -> None:
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turns = rotary_turns(torch.arange(20)[None], 8, q)
    products = rotate(q.expand(1, 1, 20, 8), turns)[0, 0] @ rotate(k.expand(1, 1, 20, 8), turns)[0, 0].T
    for distance in (0, 1, 7):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), rtol=1e-12, atol=1e-12)
    assert (products.diagonal(1)[0] - products.diagonal(7)[0]).abs() > 1e-3


def test_each_row_turns_by_its_own_places() -> None:
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    position = torch.tensor([[0, 1, 2, 3], [7, 8, 0, 1]])
    turned = rotate(x, rotary_turns(position, 6, x))
    assert torch.equal(turned[1, :, 2], x[1, :, 2])
    for pair, wavelength in enumerate((1.0, 1e4 ** (1 / 3), 1e4 ** (2 / 3))):
        complex_x = torch.complex(x[1, :, 0, pair], x[1, :, 0, pair + 3]) * torch.polar(
            torch.tensor(1.0, dtype=torch.float64), torch.tensor(7 / wavelength, dtype=torch.float64)
        )
        torch.testing.assert_close(turned[1, :, 0, pair], complex_x.real, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(turned[1, :, 0, pair + 3], complex_x.imag, rtol=1e-12, atol=1e-12)


def test_rotary_angles_are_not_rounded_to_bfloat16() -> None:
    cos, _ = rotary_turns(torch.arange(600), 8, torch.zeros(1, dtype=torch.bfloat16))
    assert cos.dtype == torch.float32
    torch.testing.assert_close(cos[599, 0].item(), math.cos(599), rtol=0, atol=1e-4)
