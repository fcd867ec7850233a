"""Multi-resolution attention token by token in plain PyTorch: slow, obvious, and exact in float64.

Letters: B batch, T tokens, H heads, C head size, K keys that one token meets. README.md has the mathematics.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .resolutions import Resolutions


def pool_reference(x_BHTC: Tensor, position_BT: Tensor, size: int) -> list[list[Tensor]]:
    """For each row the means (H, C) of its documents' complete blocks, in order."""
    ends = [[t for t, place in enumerate(row) if (place + 1) % size == 0] for row in position_BT.tolist()]
    return [[x_HTC[:, t - size + 1 : t + 1].mean(1) for t in row] for x_HTC, row in zip(x_BHTC, ends, strict=True)]


def multi_resolution_reference(
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    blocks: Sequence[tuple[Tensor, Tensor]],
    position_BT: Tensor,
    resolutions: Resolutions,
) -> Tensor:
    """The arguments and the value of multi_resolution_attention."""
    rows = []
    for b, position_T in enumerate(position_BT.tolist()):
        row_blocks = [(key_BHNC[b], value_BHNC[b]) for key_BHNC, value_BHNC in blocks]
        parts = [
            _one_token(q_BHTC[b, :, t], k_BHTC[b], v_BHTC[b], row_blocks, position_T[: t + 1], resolutions)
            for t in range(len(position_T))
        ]
        rows.append(torch.stack(parts, 1))
    return torch.stack(rows)


def _one_token(
    q_HC: Tensor,
    k_HTC: Tensor,
    v_HTC: Tensor,
    blocks: Sequence[tuple[Tensor, Tensor]],
    positions: list[int],
    resolutions: Resolutions,
) -> Tensor:
    t, place = len(positions) - 1, positions[-1]
    first = t - place
    begin, coarse = 0, []
    for size, (key_HNC, value_HNC) in zip(resolutions.levels, blocks, strict=True):
        ends = [s for s in range(t + 1) if (positions[s] + 1) % size == 0]
        seen = [n for n, end in enumerate(ends) if end >= first and positions[end] <= place - resolutions.window]
        begin = max(begin, size * len(seen))
        if seen:
            coarse.append((key_HNC[:, seen], value_HNC[:, seen], math.log(size)))
    exact = (k_HTC[:, first + begin : t + 1], v_HTC[:, first + begin : t + 1], 0.0)
    return _fused(q_HC, [exact, *coarse], resolutions)


def _fused(q_HC: Tensor, parts: Sequence[tuple[Tensor, Tensor, float]], resolutions: Resolutions) -> Tensor:
    scores = [torch.einsum("hc,hkc->hk", q_HC, key) / math.sqrt(q_HC.shape[-1]) + bias for key, _, bias in parts]
    if resolutions.fuse == "softmax":
        value_HKC = torch.cat([value for _, value, _ in parts], 1)
        return torch.einsum("hk,hkc->hc", torch.cat(scores, 1).softmax(1), value_HKC)
    outs = [torch.einsum("hk,hkc->hc", s.softmax(1), value) for s, (_, value, _) in zip(scores, parts, strict=True)]
    return torch.stack(outs).mean(0)
