"""Triton kernels of attention over a cache: parts of the slots side by side, then their sum.

launch.py launches them; nothing is checked here. All sums are in float32.
Letters: B rows, H heads, C channels of queries and keys, V of values, S slots, P parts of the slots.
"""

import triton
import triton.language as tl


@triton.jit
def part_kernel(
    q_ptr, key_ptr, value_ptr, position_ptr, sum_ptr, size_ptr, most_ptr,
    heads, slots, each, channels, width, scale,
    BS: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of one head and one part: the weighted sum of values, the sum of weights, both over 2^most, and most.

    `scale` takes products to powers of two.
    """
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, v = tl.arange(0, BC), tl.arange(0, BV)
    end = tl.minimum(tl.load(position_ptr + row // heads).to(tl.int32) + 1, slots)
    first = part * each
    last = tl.minimum(first + each, end)
    q = tl.load(q_ptr + row * channels + c, mask=c < channels, other=0.0).to(tl.float32) * scale
    most = tl.full((), float("-inf"), tl.float32)
    size = tl.zeros((), tl.float32)
    total = tl.zeros((BV,), tl.float32)
    for begin in tl.range(first, last, BS, num_stages=STAGES):
        s = begin + tl.arange(0, BS)
        key_place = key_ptr + (row * slots + s[:, None]) * channels + c[None, :]
        key = tl.load(key_place, mask=(s[:, None] < last) & (c[None, :] < channels), other=0.0)
        value_place = value_ptr + (row * slots + s[:, None]) * width + v[None, :]
        value = tl.load(value_place, mask=(s[:, None] < last) & (v[None, :] < width), other=0.0)
        score = tl.where(s < last, tl.sum(key.to(tl.float32) * q[None, :], 1), float("-inf"))
        higher = tl.maximum(most, tl.max(score, 0))
        weight = tl.exp2(score - higher)
        shrink = tl.exp2(most - higher)
        total = total * shrink + tl.sum(weight[:, None] * value.to(tl.float32), 0)
        size = size * shrink + tl.sum(weight, 0)
        most = higher
    place = row * tl.num_programs(1) + part
    tl.store(sum_ptr + place * width + v, total, mask=v < width)
    tl.store(size_ptr + place, size)
    tl.store(most_ptr + place, most)


@triton.jit
def whole_kernel(
    sum_ptr, size_ptr, most_ptr, out_ptr, parts, width, PARTS: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Of one head: the parts' sums together. A part without slots has size 0, and -inf as its most."""
    row = tl.program_id(0).to(tl.int64)
    p, v = tl.arange(0, PARTS), tl.arange(0, BV)
    most = tl.load(most_ptr + row * parts + p, mask=p < parts, other=float("-inf"))
    weight = tl.exp2(most - tl.max(most, 0))
    size = tl.sum(weight * tl.load(size_ptr + row * parts + p, mask=p < parts, other=0.0), 0)
    place = sum_ptr + (row * parts + p[:, None]) * width + v[None, :]
    parts_sum = tl.load(place, mask=(p[:, None] < parts) & (v[None, :] < width), other=0.0)
    out = tl.sum(weight[:, None] * parts_sum, 0) / size
    tl.store(out_ptr + row * width + v, out.to(out_ptr.dtype.element_ty), mask=v < width)
