"""Multi-resolution attention: exact keys in a window, mean keys of blocks before it; for sequences and for one token.

README.md has the mathematics. Memory is O(T (window + T / size)): scores are made for chunks of queries and the keys
that they can reach. The scores and the softmax are in float32 at least.

Letters: B batch, T tokens, H heads, C head size, N blocks of one level, J keys that a chunk reaches, R slots of the
ring.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..route import dtype_name, machine_of
from .library import range_attention_op, ranges_attention_op
from .resolutions import Fuse, Resolutions, block_ends, pool_blocks
from .route import LARGEST_HEAD, route_mra

__all__ = [
    "Fuse",
    "Resolutions",
    "block_ends",
    "multi_resolution_attention",
    "multi_resolution_step",
    "pool_blocks",
]

# Below this many queries a product of a chunk is too small to be worth its call.
CHUNK_LEAST = 16


def multi_resolution_attention(
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    blocks: Sequence[tuple[Tensor, Tensor]],
    position_BT: Tensor,
    resolutions: Resolutions,
) -> Tensor:
    """What each token takes from its document so far, (B, H, T, C) in v's dtype.

    Args:
        q_BHTC: queries.
        k_BHTC: exact keys.
        v_BHTC: exact values.
        blocks: for each level the keys and the values (B, H, T // size, C) of the blocks in the order of block_ends.
        position_BT: int64 places in the documents, or (1, T) for all rows.
        resolutions: window, levels and how to fuse.
    """
    if len(blocks) != len(resolutions.levels):
        raise ValueError(f"wanted blocks of {len(resolutions.levels)} levels, found {len(blocks)}")
    if _has_kernels(q_BHTC):
        return by_kernels(q_BHTC, k_BHTC, v_BHTC, blocks, position_BT, resolutions)
    q_BHTC, k_BHTC, wide_v_BHTC = _wide(q_BHTC) * q_BHTC.shape[-1] ** -0.5, _wide(k_BHTC), _wide(v_BHTC)
    tokens = q_BHTC.shape[2]
    chunk = min(max(resolutions.window, CHUNK_LEAST), tokens)
    back = min(resolutions.reach - 1, tokens - 1)
    scores = [_window_scores(q_BHTC, k_BHTC, position_BT, resolutions, chunk, back)]
    values = []
    for size, (key_BHNC, value_BHNC) in zip(resolutions.levels, blocks, strict=True):
        # A row shorter than a block has none; the other levels do not depend on it.
        if tokens >= size:
            scores.append(_block_scores(q_BHTC, _wide(key_BHNC), position_BT, resolutions, size))
            values.append(_wide(value_BHNC))
    window_BHTJ, *others = _shares(scores, resolutions.fuse)
    mixed_BHTC = _window_values(window_BHTJ, wide_v_BHTC, chunk, back)
    for share_BHTN, value_BHNC in zip(others, values, strict=True):
        mixed_BHTC = mixed_BHTC + share_BHTN @ value_BHNC
    return mixed_BHTC.to(v_BHTC.dtype)


def by_kernels(
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    blocks: Sequence[tuple[Tensor, Tensor]],
    position_BT: Tensor,
    resolutions: Resolutions,
) -> Tensor:
    """The same, by a pass over the window and one over each level; one softmax goes on from pass to pass."""
    batch, _, tokens, size = q_BHTC.shape
    index_T = torch.arange(tokens, device=q_BHTC.device)
    first_BT = index_T - position_BT
    begin_BT = first_BT + resolutions.window_begin(position_BT)
    # Keys, values, their places, the least and the largest place that each query sees, log of a key's weight.
    passes = [(k_BHTC, v_BHTC, index_T[None], begin_BT, index_T[None], 0.0)]
    for level, (key_BHNC, value_BHNC) in zip(resolutions.levels, blocks, strict=True):
        # A row shorter than a block has none.
        if tokens >= level:
            old_T = index_T[None] - resolutions.window
            passes.append((key_BHNC, value_BHNC, block_ends(position_BT, level), first_BT, old_T, math.log(level)))
    operands, ranges, biases = [], [], []
    for key, value, *places, bias in passes:
        operands.append([key.contiguous(), value.contiguous()])
        ranges.append([place.to(torch.int32).expand(batch, -1).contiguous() for place in places])
        biases.append(bias)
    q_BHTC, scale = q_BHTC.contiguous(), size**-0.5
    if resolutions.fuse == "softmax":
        lists = ([list(each) for each in zip(*rows, strict=True)] for rows in (operands, ranges))
        out_BHTC: Tensor = ranges_attention_op(q_BHTC, *next(lists), *next(lists), scale, biases)[0]
        return out_BHTC.to(v_BHTC.dtype)
    each = zip(operands, ranges, biases, strict=True)
    return _mean_of_passes([range_attention_op(q_BHTC, *kv, *three, scale, bias) for kv, three, bias in each])


def _mean_of_passes(results: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of the outputs of the resolutions that have a visible key for a token: whose sum's log is finite."""
    seen_RBHT = torch.stack([lse_BHT.detach() > -torch.inf for _, lse_BHT in results])
    share_RBHT = seen_RBHT / seen_RBHT.sum(0)
    mixed = [share[..., None] * out_BHTC for share, (out_BHTC, _) in zip(share_RBHT, results, strict=True)]
    return torch.stack(mixed).sum(0).to(results[0][0].dtype)


def _has_kernels(q_BHTC: Tensor) -> bool:
    if not q_BHTC.is_cuda:
        return False
    if torch.compiler.is_compiling():
        # The compiler has Triton itself, and cannot trace a look at the machine.
        return q_BHTC.dtype != torch.float64 and q_BHTC.shape[-1] <= LARGEST_HEAD
    route = route_mra(machine_of(q_BHTC.device), head_size=q_BHTC.shape[-1], dtype=dtype_name(q_BHTC))
    return route.implementation == "triton"


def multi_resolution_step(
    q_BHC: Tensor,
    window: tuple[Tensor, Tensor],
    blocks: Sequence[tuple[Tensor, Tensor]],
    position_B: Tensor,
    resolutions: Resolutions,
) -> Tensor:
    """The same for one token per row, (B, H, C) in the values' dtype.

    Args:
        q_BHC: queries.
        window: keys and values (B, H, R, C), R = resolutions.reach; slot place % R holds a place of the document, the
            token itself included. Slots that no place was written to hold anything finite.
        blocks: for each level keys and values (B, H, slots, C); slot j holds block j once that is complete.
        position_B: int64, the tokens' places in their documents.
        resolutions: window, levels and how to fuse.
    """
    query_BH1C = _wide(q_BHC)[:, :, None] * q_BHC.shape[-1] ** -0.5
    slot_R = torch.arange(resolutions.reach, device=q_BHC.device)
    place_BR = position_B[:, None] - (position_B[:, None] - slot_R) % resolutions.reach
    visible = [place_BR >= resolutions.window_begin(position_B)[:, None]]
    bias = [0.0]
    for size, (key_BHNC, _) in zip(resolutions.levels, blocks, strict=True):
        slot_N = torch.arange(key_BHNC.shape[2], device=q_BHC.device)
        visible.append(slot_N < resolutions.old_blocks(position_B, size)[:, None])
        bias.append(math.log(size))
    sources = [window, *blocks]
    scores = [
        (query_BH1C @ _wide(key).transpose(-1, -2) + more).masked_fill(~seen[:, None, None], -torch.inf)
        for (key, _), more, seen in zip(sources, bias, visible, strict=True)
    ]
    shares = _shares(scores, resolutions.fuse)
    mixed = [share @ _wide(value) for share, (_, value) in zip(shares, sources, strict=True)]
    return torch.stack(mixed).sum(0)[:, :, 0].to(window[1].dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _window_scores(
    q_BHTC: Tensor, k_BHTC: Tensor, position_BT: Tensor, resolutions: Resolutions, chunk: int, back: int
) -> Tensor:
    """(B, H, T, J): scores of exact keys, J = back + chunk; column j is key `back` before the chunk, plus j."""
    tokens = q_BHTC.shape[2]
    query_BHXUC = torch.unflatten(F.pad(q_BHTC, (0, 0, 0, -tokens % chunk)), 2, (-1, chunk))
    score_BHTJ = (query_BHXUC @ _reachable(k_BHTC, chunk, back)).flatten(2, 3)[:, :, :tokens]
    index_T = torch.arange(tokens, device=q_BHTC.device)
    begin_BT = index_T - position_BT + resolutions.window_begin(position_BT)
    index_TJ = (index_T // chunk * chunk - back)[:, None] + torch.arange(back + chunk, device=q_BHTC.device)
    visible_BTJ = (begin_BT[..., None] <= index_TJ) & (index_TJ <= index_T[:, None])
    return score_BHTJ.masked_fill(~visible_BTJ[:, None], -torch.inf)


def _window_values(share_BHTJ: Tensor, v_BHTC: Tensor, chunk: int, back: int) -> Tensor:
    tokens = v_BHTC.shape[2]
    share_BHXUJ = torch.unflatten(F.pad(share_BHTJ, (0, 0, 0, -tokens % chunk)), 2, (-1, chunk))
    return (share_BHXUJ @ _reachable(v_BHTC, chunk, back).transpose(-1, -2)).flatten(2, 3)[:, :, :tokens]


def _reachable(x_BHTC: Tensor, chunk: int, back: int) -> Tensor:
    """(B, H, X, C, J): for each of X chunks the tokens in it and `back` before it, zeros beyond the row."""
    return F.pad(x_BHTC, (0, 0, back, -x_BHTC.shape[2] % chunk)).unfold(2, back + chunk, chunk)


def _block_scores(q_BHTC: Tensor, key_BHNC: Tensor, position_BT: Tensor, resolutions: Resolutions, size: int) -> Tensor:
    """(B, H, T, N): scores of a level's blocks, log(size) added, since a block stands for so many keys."""
    index_T = torch.arange(q_BHTC.shape[2], device=q_BHTC.device)
    end_BN = block_ends(position_BT, size)
    first_BT = index_T - position_BT
    visible_BTN = (first_BT[..., None] <= end_BN[:, None]) & (end_BN[:, None] <= index_T[:, None] - resolutions.window)
    score_BHTN = q_BHTC @ key_BHNC.transpose(-1, -2) + math.log(size)
    return score_BHTN.masked_fill(~visible_BTN[:, None], -torch.inf)


def _shares(scores: Sequence[Tensor], fuse: Fuse) -> list[Tensor]:
    """What each key contributes, for each resolution; all of a token's together sum to one.

    Args:
        scores: per resolution (..., keys), -inf where a key is not visible. The first has a visible key in each row.
        fuse: softmax over all of them, or the mean of the resolutions that have a visible key.
    """
    least = torch.finfo(scores[0].dtype).min
    most = [score.detach().amax(-1, keepdim=True).clamp(min=least) for score in scores]
    if fuse == "softmax":
        most = [torch.stack(most).amax(0)] * len(scores)
    parts = [(score - top).exp() for score, top in zip(scores, most, strict=True)]
    sums = [part.sum(-1, keepdim=True) for part in parts]
    if fuse == "softmax":
        total = torch.stack(sums).sum(0)
        return [part / total for part in parts]
    resolutions = torch.stack([whole > 0 for whole in sums]).sum(0)
    return [part / torch.where(whole > 0, whole * resolutions, 1) for part, whole in zip(parts, sums, strict=True)]
