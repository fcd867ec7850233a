"""Triton kernels of KalmaGrove's dispatch: rows from tokens, tokens from rows, and the gradient of the shares.

launch.py launches them; nothing is checked here. Each output is written by one program and summed in the order of k:
no sum depends on timing. Letters: N tokens, k chosen per token (ACTIVE), M = N k rows, C channels.
place (N, k) tells where the row of a token and its choice is; each row is the place of exactly one.
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
