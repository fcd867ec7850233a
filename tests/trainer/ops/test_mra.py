"""Multi-resolution attention against its reference, in float64 where equality is meant, and the rules of its blocks."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kanctl.trainer.ops.mra import (
    Resolutions,
    block_ends,
    multi_resolution_attention,
    multi_resolution_step,
    pool_blocks,
)
from kanctl.trainer.ops.mra.reference import multi_resolution_reference, pool_reference

CASES = [
    Resolutions(window=4, levels=(3,)),
    Resolutions(window=1, levels=(1,)),
    Resolutions(window=3, levels=(5, 2)),
    Resolutions(window=7, levels=(4, 4), fuse="sum"),
    Resolutions(window=2, levels=(3, 40), fuse="sum"),
    Resolutions(window=64, levels=(2,)),
]
cases = pytest.mark.parametrize("resolutions", CASES, ids=lambda r: f"w{r.window}-{r.levels}-{r.fuse}")
DOCUMENTS = [[19], [6, 13], [1, 1, 4, 13]]
H, C = 2, 4


def places(documents: list[list[int]]) -> Tensor:
    return torch.tensor([[place for length in row for place in range(length)] for row in documents])


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def operands(position_BT: Tensor, resolutions: Resolutions) -> list[Tensor]:
    """Queries, keys, values, then keys and values of the blocks of each level: all independent of each other."""
    batch, tokens = position_BT.shape
    sizes = [tokens] * 3 + [tokens // size for size in resolutions.levels for _ in range(2)]
    return [drawn(batch, H, size, C, seed=seed) for seed, size in enumerate(sizes)]


def run(call, given: list[Tensor], position_BT: Tensor, resolutions: Resolutions) -> Tensor:
    q, k, v, *rest = given
    return call(q, k, v, list(zip(rest[::2], rest[1::2], strict=True)), position_BT, resolutions)


@cases
def test_values_and_all_gradients_are_those_of_the_reference(resolutions: Resolutions) -> None:
    position_BT = places(DOCUMENTS)
    results = []
    for call in (multi_resolution_attention, multi_resolution_reference):
        given = [x.requires_grad_() for x in operands(position_BT, resolutions)]
        out = run(call, given, position_BT, resolutions)
        slopes = torch.autograd.grad(out, given, drawn(*out.shape, seed=99), allow_unused=True)
        results.append([out, *(torch.zeros_like(x) if s is None else s for x, s in zip(given, slopes, strict=True))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@cases
@pytest.mark.parametrize("tokens", [1, 2, 5, 16, 17])
def test_rows_of_any_length_and_of_one_document_agree_with_the_reference(resolutions: Resolutions, tokens: int) -> None:
    position_BT = torch.arange(tokens)[None]
    given = operands(position_BT, resolutions)
    ours = run(multi_resolution_attention, given, position_BT, resolutions)
    torch.testing.assert_close(
        ours, run(multi_resolution_reference, given, position_BT, resolutions), rtol=0, atol=1e-12
    )


@cases
def test_bfloat16_is_near_the_reference_on_the_same_numbers(resolutions: Resolutions) -> None:
    position_BT = places(DOCUMENTS)
    given = [x.bfloat16() for x in operands(position_BT, resolutions)]
    ours = run(multi_resolution_attention, given, position_BT, resolutions)
    theirs = run(multi_resolution_reference, [x.double() for x in given], position_BT, resolutions)
    assert ours.dtype == torch.bfloat16
    # Only the result is rounded: half a unit of eight bits.
    torch.testing.assert_close(ours.double(), theirs, rtol=2**-8, atol=1e-5)


@cases
def test_the_slopes_are_those_of_finite_differences(resolutions: Resolutions) -> None:
    position_BT = places([[3, 6], [9]])
    given = [x.requires_grad_() for x in operands(position_BT, resolutions)]
    assert torch.autograd.gradcheck(
        lambda *x: run(multi_resolution_attention, list(x), position_BT, resolutions), given, fast_mode=True
    )


@cases
def test_one_token_from_the_ring_and_the_blocks_is_the_last_of_the_sequence(resolutions: Resolutions) -> None:
    reach = resolutions.reach
    for tokens in (1, 2, 6, 19):
        position_BT = torch.arange(tokens)[None]
        q, k, v, *rest = operands(position_BT, resolutions)
        expected = run(multi_resolution_attention, [q, k, v, *rest], position_BT, resolutions)[:, :, -1]
        ring = [drawn(1, H, reach, C, seed=seed) for seed in (7, 8)]
        for place in range(tokens):
            ring[0][:, :, place % reach], ring[1][:, :, place % reach] = k[:, :, place], v[:, :, place]
        # Slots after the complete blocks hold numbers that nobody may read.
        roomy = [torch.cat([x, 100 + drawn(1, H, 3, C)], 2) for x in rest]
        blocks = list(zip(roomy[::2], roomy[1::2], strict=True))
        ours = multi_resolution_step(q[:, :, -1], (ring[0], ring[1]), blocks, torch.tensor([tokens - 1]), resolutions)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_blocks_of_equal_keys_stand_for_all_their_keys_exactly() -> None:
    """log(size) is what makes one key stand for `size` equal ones: then nothing is lost against full attention."""
    size, tokens = 4, 32
    k, v = (drawn(1, H, tokens // size, C, seed=seed).repeat_interleave(size, 2) for seed in (1, 2))
    q = drawn(1, H, tokens, C, seed=3)
    position_BT = torch.arange(tokens)[None]
    end_BN = block_ends(position_BT, size)
    blocks = [(pool_blocks(k, end_BN, size), pool_blocks(v, end_BN, size))]
    ours = multi_resolution_attention(q, k, v, blocks, position_BT, Resolutions(window=3, levels=(size,)))
    full = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, full, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("levels", [(1,), (4,), (3, 7), (6, 2)])
def test_the_window_reaches_back_to_the_last_old_block_and_no_further(window: int, levels: tuple[int, ...]) -> None:
    resolutions = Resolutions(window=window, levels=levels)
    place_T = torch.arange(100)
    begin_T = resolutions.window_begin(place_T)
    exact_T = place_T - begin_T + 1
    assert (exact_T >= torch.minimum(place_T + 1, torch.tensor(window))).all()
    assert exact_T.max() == resolutions.reach == window + min(levels) - 1
    for place, begin in enumerate(begin_T.tolist()):
        covered = {j for size in levels for j in range(size * int(resolutions.old_blocks(place_T[place], size)))}
        assert covered == set(range(begin))
        # The definition: block j is visible when (j + 1) size - 1 <= place - window.
        for size in levels:
            visible = [j for j in range(100) if (j + 1) * size - 1 <= place - window]
            assert int(resolutions.old_blocks(place_T[place], size)) == len(visible)


@pytest.mark.parametrize("size", [1, 2, 3, 19, 20])
def test_blocks_are_counted_from_each_documents_start_and_pooled_like_the_reference(size: int) -> None:
    position_BT = places(DOCUMENTS)
    x = drawn(3, H, 19, C)
    end_BN = block_ends(position_BT, size)
    assert end_BN.shape == (3, 19 // size)
    pooled = pool_blocks(x, end_BN, size)
    for row, means in enumerate(pool_reference(x, position_BT, size)):
        assert (end_BN[row] < 19).sum() == len(means)
        for column, mean_HC in enumerate(means):
            torch.testing.assert_close(pooled[row, :, column], mean_HC, rtol=0, atol=1e-14)
    assert pooled.isfinite().all()


def test_pooling_in_bfloat16_sums_in_float32() -> None:
    x = torch.full((1, 1, 512, 1), 1.0 + 2**-7, dtype=torch.bfloat16)
    assert pool_blocks(x, torch.tensor([[511]]), 512).item() == 1.0 + 2**-7


def test_memory_grows_with_the_window_and_the_blocks_not_with_the_square() -> None:
    """The largest tensor kept for the backward pass, at T = 512 and window = size = 16: far below T * T."""
    tokens, resolutions = 512, Resolutions(window=16, levels=(16,))
    position_BT = torch.arange(tokens)[None]
    given = [x[:, :1].requires_grad_() for x in operands(position_BT, resolutions)]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        run(multi_resolution_attention, given, position_BT, resolutions)
    assert max(kept) <= tokens * (2 * 16 + 16) * C
    assert max(kept) < tokens * tokens


def test_the_sum_is_the_mean_of_one_softmax_per_resolution() -> None:
    """Written out for the last of five tokens: window 2, one block of two, one of three, and one too long."""
    resolutions = Resolutions(window=2, levels=(2, 3, 9), fuse="sum")
    position_BT = torch.arange(5)[None]
    q, k, v, k2, v2, k3, v3, *_ = operands(position_BT, resolutions)
    blocks = [(k2, v2), (k3, v3), (k3[:, :, :0], v3[:, :, :0])]
    ours = multi_resolution_attention(q, k, v, blocks, position_BT, resolutions)[0, :, 4]
    exact = (q[0, :, 4, None] @ k[0, :, 3:].transpose(1, 2) / math.sqrt(C)).softmax(-1) @ v[0, :, 3:]
    torch.testing.assert_close(ours, (exact[:, 0] + v2[0, :, 0] + v3[0, :, 0]) / 3, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("window", "levels", "fuse", "words"),
    [
        (0, (2,), "softmax", "found 0"),
        (2, (), "softmax", "levels"),
        (2, (0,), "sum", "levels"),
        (2, (2,), "max", "fuse"),
    ],
)
def test_resolutions_that_mean_nothing_are_refused(window, levels, fuse, words) -> None:
    with pytest.raises(ValueError, match=words):
        Resolutions(window=window, levels=levels, fuse=fuse)


def test_blocks_must_be_given_for_each_level() -> None:
    position_BT = torch.arange(5)[None]
    q, k, v, *_ = operands(position_BT, CASES[0])
    with pytest.raises(ValueError, match="wanted blocks of 1 levels, found 0"):
        multi_resolution_attention(q, k, v, [], position_BT, CASES[0])
