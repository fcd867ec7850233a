"""Attention of one query over a cache, plain and by Triton in the interpreter, against the formula in float64."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.attention import cached_attention, launch
from kanctl.trainer.ops.attention.reference import cached_attention_reference
from kanctl.trainer.ops.attention.route import route_cached_attention
from kanctl.trainer.ops.route import Machine

pytestmark = pytest.mark.usefixtures("poisoned")

# Slots, places: one slot; the first of many; a part's border, before and behind it; the last.
CASES = [(1, (0,)), (300, (0, 127)), (300, (128, 129)), (512, (511, 63)), (70, (69, 64, 1))]


def case(slots: int, places: tuple[int, ...], channels: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(slots)
    rows = len(places)
    q = torch.randn(rows, 3, channels, generator=generator)
    key = torch.randn(rows, 3, slots, channels, generator=generator)
    value = torch.randn(rows, 3, slots, width, generator=generator)
    for row, place in enumerate(places):
        # Slots that are not filled hold anything finite.
        key[row, :, place + 1 :], value[row, :, place + 1 :] = 1e30, -1e30
    return q, key, value, torch.tensor(places)


@pytest.mark.parametrize(("channels", "width"), [(1, 1), (16, 16), (20, 12)])
@pytest.mark.parametrize(("slots", "places"), CASES, ids=str)
def test_values_are_those_of_the_formula(slots: int, places: tuple[int, ...], channels: int, width: int) -> None:
    inputs = case(slots, places, channels, width)
    wanted = cached_attention_reference(*(x.double() for x in inputs[:3]), inputs[3], channels**-0.5)
    for found in (launch.cached_attention(*inputs, channels**-0.5), cached_attention(*inputs, channels**-0.5)):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_large_scores_do_not_overflow() -> None:
    q, key, value, place = case(300, (299,), 4, 4)
    inputs = (q * 1e3, key * 1e3, value, place)
    wanted = cached_attention_reference(*(x.double() for x in inputs[:3]), place, 0.5)
    torch.testing.assert_close(launch.cached_attention(*inputs, 0.5).double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_reaches_its_own_head_alone() -> None:
    q, key, value, place = case(300, (250, 250), 4, 4)
    key[1, 2, 200] = float("nan")
    found = launch.cached_attention(q, key, value, place, 0.5)
    assert found[1, 2].isnan().all()
    found[1, 2] = 0
    assert found.isfinite().all()


def test_the_route_says_why() -> None:
    h200 = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
    assert route_cached_attention(h200, dtype="bfloat16").implementation == "triton"
    assert route_cached_attention(h200, dtype="float64").reason == "float64 is for references"
    assert route_cached_attention(Machine(device="cpu"), dtype="float32").implementation == "torch"
