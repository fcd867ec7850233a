"""Triton kernels of KalmaGrove: the choice of experts, rows from tokens, tokens from rows, and their gradients.

launch.py launches them; nothing is checked here. Each output is written by one program and summed in the order of k:
no sum depends on timing. Letters: N tokens, E experts, r selector rank, k chosen per token (ACTIVE), M = N k rows,
C channels. seen (N, E r + E) holds what selectors saw, then what gates saw. place (N, k) tells where the row of a token
and its choice is; each row is the place of exactly one.
"""

import triton
import triton.language as tl


@triton.jit
def spread_kernel(
    x_ptr, place_ptr, weight_ptr, out_ptr, tokens, channels,
    ACTIVE: tl.constexpr, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out (M, C): row place[n, j] = x[n] (times weight[n, j])."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    there = (n[:, None] < tokens) & (c < channels)
    x = tl.load(x_ptr + n[:, None].to(tl.int64) * channels + c, mask=there, other=0.0).to(tl.float32)
    for j in tl.static_range(ACTIVE):
        place = tl.load(place_ptr + n * ACTIVE + j, mask=n < tokens, other=0).to(tl.int64)
        value = x
        if WEIGHTED:
            value = x * tl.load(weight_ptr + n * ACTIVE + j, mask=n < tokens, other=0.0).to(tl.float32)[:, None]
        tl.store(out_ptr + place[:, None] * channels + c, value.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def add_up_kernel(
    rows_ptr, place_ptr, weight_ptr, out_ptr, tokens, channels,
    ACTIVE: tl.constexpr, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out (N, C) = sum over j of row place[n, j] (times weight[n, j])."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    there = (n[:, None] < tokens) & (c < channels)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for j in tl.static_range(ACTIVE):
        place = tl.load(place_ptr + n * ACTIVE + j, mask=n < tokens, other=0).to(tl.int64)
        value = tl.load(rows_ptr + place[:, None] * channels + c, mask=there, other=0.0).to(tl.float32)
        if WEIGHTED:
            value *= tl.load(weight_ptr + n * ACTIVE + j, mask=n < tokens, other=0.0).to(tl.float32)[:, None]
        total += value
    tl.store(out_ptr + n[:, None].to(tl.int64) * channels + c, total.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def share_gradient_kernel(
    rows_ptr, place_ptr, grad_ptr, out_ptr, tokens, channels,
    ACTIVE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out (N, k) = grad[n] . row place[n, j], of all channels."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for j in tl.static_range(ACTIVE):
        place = tl.load(place_ptr + n * ACTIVE + j, mask=n < tokens, other=0).to(tl.int64)
        total = tl.zeros((ROWS,), tl.float32)
        for first in range(0, channels, COLUMNS):
            c = (first + tl.arange(0, COLUMNS))[None, :]
            there = (n[:, None] < tokens) & (c < channels)
            row = tl.load(rows_ptr + place[:, None] * channels + c, mask=there, other=0.0).to(tl.float32)
            grad = tl.load(grad_ptr + n[:, None].to(tl.int64) * channels + c, mask=there, other=0.0).to(tl.float32)
            total += tl.sum(row * grad, 1)
        tl.store(out_ptr + n * ACTIVE + j, total.to(out_ptr.dtype.element_ty), mask=n < tokens)


@triton.jit
def _scores(seen_ptr, scale_ptr, n, e, q, tokens, experts, rank):
    """Selectors' views (ROWS, E, r) of tokens, their sizes, and scores (both ROWS, E); absent ones are 0."""
    there = (n[:, None, None] < tokens) & (e[None, :, None] < experts) & (q[None, None, :] < rank)
    place = n.to(tl.int64)[:, None, None] * (experts * (rank + 1)) + e[None, :, None] * rank + q[None, None, :]
    seen = tl.load(seen_ptr + place, mask=there, other=0.0).to(tl.float32)
    size = tl.sqrt(tl.sum(seen * seen, 2))
    scale = tl.load(scale_ptr + e, mask=e < experts, other=1.0).to(tl.float32)
    return seen, place, there, size, size / scale[None, :], scale


@triton.jit
def choose_kernel(
    seen_ptr, scale_ptr, bias_ptr, shift_ptr, expert_ptr, weight_ptr, tokens, experts, rank, least,
    ACTIVE: tl.constexpr, ROWS: tl.constexpr, EXPERTS: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """Of each token the ACTIVE experts of the largest score plus shift, in ascending order, and their weights."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    e, q = tl.arange(0, EXPERTS), tl.arange(0, RANK)
    _, _, _, _, score, _ = _scores(seen_ptr, scale_ptr, n, e, q, tokens, experts, rank)
    there = (n[:, None] < tokens) & (e[None, :] < experts)
    key = score + tl.load(shift_ptr + e, mask=e < experts, other=0.0).to(tl.float32)[None, :]
    # NaN is chosen first, so that it is seen, and what is no expert never.
    key = tl.where(key != key, float("inf"), key)
    is_free = tl.broadcast_to(e[None, :] < experts, (ROWS, EXPERTS))
    for _ in tl.static_range(ACTIVE):
        best = tl.max(tl.where(is_free, key, float("-inf")), 1)
        first = tl.min(tl.where(is_free & (key == best[:, None]), e[None, :], EXPERTS), 1)
        is_free = is_free & (e[None, :] != first[:, None])
    is_chosen = (e[None, :] < experts) & (is_free == 0)
    total = tl.sum(tl.where(is_chosen, score, 0.0), 1)
    total = tl.where(total < least, least, total)
    logit_place = n.to(tl.int64)[:, None] * (experts * (rank + 1)) + experts * rank + e[None, :]
    logit = tl.load(seen_ptr + logit_place, mask=there, other=0.0).to(tl.float32)
    logit += tl.load(bias_ptr + e, mask=e < experts, other=0.0)[None, :].to(tl.float32)
    weight = score / total[:, None] / (1.0 + tl.exp(-logit))
    slot = tl.cumsum(is_chosen.to(tl.int32), 1) - 1
    for j in tl.static_range(ACTIVE):
        is_mine = is_chosen & (slot == j)
        tl.store(expert_ptr + n * ACTIVE + j, tl.sum(tl.where(is_mine, e[None, :], 0), 1), mask=n < tokens)
        tl.store(weight_ptr + n * ACTIVE + j, tl.sum(tl.where(is_mine, weight, 0.0), 1), mask=n < tokens)


@triton.jit
def choose_gradient_kernel(
    seen_ptr, scale_ptr, bias_ptr, expert_ptr, grad_ptr, out_ptr, scale_out_ptr, bias_out_ptr,
    tokens, experts, rank, least,
    ACTIVE: tl.constexpr, ROWS: tl.constexpr, EXPERTS: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """The gradient of what selectors and gates saw; those of scales and biases, of each program's tokens."""
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    e, q = tl.arange(0, EXPERTS), tl.arange(0, RANK)
    seen, place, is_seen, size, score, scale = _scores(seen_ptr, scale_ptr, n, e, q, tokens, experts, rank)
    there = (n[:, None] < tokens) & (e[None, :] < experts)
    grad = tl.zeros((ROWS, EXPERTS), tl.float32)
    is_chosen = tl.zeros((ROWS, EXPERTS), tl.int1)
    for j in tl.static_range(ACTIVE):
        expert = tl.load(expert_ptr + n * ACTIVE + j, mask=n < tokens, other=-1)
        of_weight = tl.load(grad_ptr + n * ACTIVE + j, mask=n < tokens, other=0.0).to(tl.float32)
        is_mine = e[None, :] == expert[:, None]
        is_chosen = is_chosen | is_mine
        grad = tl.where(is_mine, of_weight[:, None], grad)
    chosen_score = tl.where(is_chosen, score, 0.0)
    total = tl.sum(chosen_score, 1)
    is_enough = total >= least
    total = tl.where(total < least, least, total)[:, None]
    logit_place = n.to(tl.int64)[:, None] * (experts * (rank + 1)) + experts * rank + e[None, :]
    logit = tl.load(seen_ptr + logit_place, mask=there, other=0.0).to(tl.float32)
    logit += tl.load(bias_ptr + e, mask=e < experts, other=0.0)[None, :].to(tl.float32)
    gate = 1.0 / (1.0 + tl.exp(-logit))
    of_logit = tl.where(is_chosen & there, grad * (chosen_score / total) * gate * (1.0 - gate), 0.0)
    of_share = grad * gate
    if ACTIVE == 1:
        # The share of a single choice is 1 whatever its score: nothing, and not what rounding leaves of a difference.
        change = tl.zeros((ROWS, EXPERTS), tl.float32)
    else:
        change = of_share - tl.sum(of_share * chosen_score, 1)[:, None] / total
    of_score = tl.where(is_chosen & there, tl.where(is_enough[:, None], change, of_share) / total, 0.0)
    # A size of 0 has no direction.
    of_size = tl.where(size == 0.0, 0.0, of_score / scale[None, :] / tl.where(size == 0.0, 1.0, size))
    tl.store(out_ptr + place, of_size[:, :, None] * seen, mask=is_seen)
    tl.store(out_ptr + logit_place, of_logit, mask=there)
    block = tl.program_id(0) * experts + e
    tl.store(scale_out_ptr + block, -tl.sum(of_score * score, 0) / scale, mask=e < experts)
    tl.store(bias_out_ptr + block, tl.sum(of_logit, 0), mask=e < experts)
