"""Multi-resolution attention as a layer: what it is at its limits, and where pooled keys stand."""

import math

import pytest
import torch
from torch import Tensor

from kanctl.trainer.model.attention import CausalAttention
from kanctl.trainer.model.frame import Frame, one_document
from kanctl.trainer.model.mra import MultiResolutionAttention
from kanctl.trainer.model.rotary import rotary_turns, rotate

WIDTH, HEADS = 12, 2


def layer(**given) -> MultiResolutionAttention:
    made = MultiResolutionAttention(WIDTH, HEADS, **given).double()
    made.start(torch.Generator().manual_seed(1), 1.0)
    return made


def inputs(batch: int, tokens: int) -> Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(("window", "levels"), [(1, (1,)), (5, (1,)), (23, (4,)), (30, (2, 7))])
def test_blocks_of_one_token_or_a_window_over_all_make_it_plain_attention(window, levels) -> None:
    made, plain = layer(window=window, levels=levels), CausalAttention(WIDTH, HEADS).double()
    plain.load_state_dict(made.state_dict())
    position_BT = torch.tensor([[*range(23)], [*range(9), *range(14)]])
    frame = Frame(position_BT=position_BT, is_one_document=False)
    x = 3 * inputs(2, 23)
    torch.testing.assert_close(made(x, frame), plain(x, frame), rtol=0, atol=1e-12)


def test_a_block_is_the_mean_of_its_keys_turned_at_its_centre() -> None:
    """The last of seven tokens, written out: window 2, blocks 0 to 2 and 3 to 5 of which only the first is old."""
    made, x = layer(window=2, levels=(3,)), inputs(1, 7)
    q, k, v = (part.unflatten(-1, (2, 6)).transpose(1, 2) for part in made.qkv(x).chunk(3, -1))

    def turned(x_BHTC: Tensor, *at: float) -> Tensor:
        return rotate(x_BHTC, rotary_turns(torch.tensor([at]), 6, x_BHTC))

    keys = torch.cat([turned(k[:, :, :3].mean(2, keepdim=True), 1.0), turned(k[:, :, 3:], 3, 4, 5, 6)], 2)
    values = torch.cat([v[:, :, :3].mean(2, keepdim=True), v[:, :, 3:]], 2)
    scores = turned(q[:, :, 6:], 6) @ keys.transpose(2, 3) / math.sqrt(6)
    scores[..., 0] += math.log(3)
    expected = made.out((scores.softmax(-1) @ values)[0, :, 0].flatten())
    torch.testing.assert_close(made(x, one_document(1, 7))[0, 6], expected, rtol=0, atol=1e-12)


def test_a_block_may_be_read_only_when_the_window_has_left_it() -> None:
    """Old tokens act through their block's mean: two tokens of an old block can be swapped, of the window not."""
    made, x = layer(window=4, levels=(4,)), inputs(1, 12)
    swapped = x[:, [1, 0, *range(2, 12)]]
    before, after = made(x, one_document(1, 12)), made(swapped, one_document(1, 12))
    torch.testing.assert_close(after[:, 7:], before[:, 7:], rtol=0, atol=1e-12)
    assert ((after - before)[0, :7].norm(dim=-1) > 1e-6).all()


@pytest.mark.parametrize("fuse", ["softmax", "sum"])
def test_the_state_is_a_ring_and_lists_of_blocks_that_double(fuse) -> None:
    made, x = layer(window=5, levels=(2, 4), fuse=fuse), inputs(1, 40)
    _, state = made.prefill(x[:, :3], one_document(1, 3))
    sizes = set()
    for place in range(3, 40):
        out, state = made.step(x[:, place], torch.tensor([place]), state)
        assert state.key_BHRC.shape == state.value_BHRC.shape == (1, 2, 6, 6)
        sizes.add(tuple(level.key_BHNC.shape[2] for level in state.levels))
    assert sizes == {(2, 1), (4, 2), (8, 4), (16, 8), (32, 16)}
    torch.testing.assert_close(out, made(x, one_document(1, 40))[:, -1], rtol=0, atol=1e-10)


def test_both_ways_to_fuse_differ() -> None:
    x = inputs(1, 20)
    outs = [layer(window=3, levels=(4,), fuse=fuse)(x, one_document(1, 20)) for fuse in ("softmax", "sum")]
    assert (outs[0] - outs[1]).abs().max() > 1e-3
