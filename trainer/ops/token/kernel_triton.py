"""Triton kernels of one token's way through a block: small work joined to the products that read the weights.

launch.py launches them; nothing is checked here. Every sum is in float32, in one order.
With EARLY a kernel may begin while the one before it ends: until it has waited it reads nothing of that one. What the
one before that wrote it may read at once: a kernel lets the next begin only when it has waited itself.
Letters: D width, O outputs, H heads, C head size, E experts, r selector rank, k chosen (ACTIVE), M hidden channels of a
subnet, G cells of the splines' grid, P parts of the inputs.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..bspline.kernel_triton import live_edges


@triton.jit
def _wait(EARLY: tl.constexpr):
    """Until the kernel before has ended; from then on the next may begin, so that never more than two are under way."""
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()


@triton.jit
def linear_kernel(
    x_ptr, gain_ptr, weight_ptr, added_ptr, out_ptr, inputs, outputs, epsilon,
    NORMED: tl.constexpr, ADDED: tl.constexpr, EARLY: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """out (O) = weight (O, D) times x (D), which with NORMED has a root mean square of 1 times a gain; plus `added`.

    What is added must not be what the kernel before writes.
    """
    o, i = tl.program_id(0) * BO + tl.arange(0, BO), tl.arange(0, BI)
    place = weight_ptr + o[:, None].to(tl.int64) * inputs + i[None, :]
    weight = tl.load(place, mask=(o[:, None] < outputs) & (i[None, :] < inputs), other=0.0)
    if ADDED:
        added = tl.load(added_ptr + o, mask=o < outputs, other=0.0).to(tl.float32)
    _wait(EARLY)
    total = tl.zeros((BO, BI), tl.float32)
    square = tl.zeros((BI,), tl.float32)
    for first in range(0, inputs, BI):
        i = first + tl.arange(0, BI)
        x = tl.load(x_ptr + i, mask=i < inputs, other=0.0).to(tl.float32)
        if NORMED:
            square += x * x
            x *= tl.load(gain_ptr + i, mask=i < inputs, other=0.0).to(tl.float32)
        total += weight.to(tl.float32) * x[None, :]
        there = (o[:, None] < outputs) & (i[None, :] + BI < inputs)
        weight = tl.load(place + first + BI, mask=there, other=0.0)
    y = tl.sum(total, 1)
    if NORMED:
        y *= tl.rsqrt(tl.sum(square, 0) / inputs + epsilon)
    if ADDED:
        y += added
    tl.store(out_ptr + o, y.to(out_ptr.dtype.element_ty), mask=o < outputs)


@triton.jit
def view_kernel(
    x_ptr, gain_ptr, selector_ptr, gate_ptr, seen_ptr, square_ptr, factor_ptr, inputs, selectors, epsilon,
    EARLY: tl.constexpr, BI: tl.constexpr,
):  # fmt: skip
    """What one row of selectors or gates sees of the scaled token, and the square of its own length.

    The first program also leaves the factor by which edges take the token with its gain: that of its own norm, and then
    that of the norm before edges.
    """
    row, i = tl.program_id(0), tl.arange(0, BI)
    of_selector = selector_ptr + row.to(tl.int64) * inputs + i
    of_gate = gate_ptr + (row - selectors).to(tl.int64) * inputs + i
    is_selector = row < selectors
    weight = tl.load(of_selector, mask=(i < inputs) & is_selector, other=0.0).to(tl.float32)
    weight += tl.load(of_gate, mask=(i < inputs) & (row >= selectors), other=0.0).to(tl.float32)
    _wait(EARLY)
    seen = tl.zeros((BI,), tl.float32)
    length = tl.zeros((BI,), tl.float32)
    square = tl.zeros((BI,), tl.float32)
    gained = tl.zeros((BI,), tl.float32)
    for first in range(0, inputs, BI):
        i = first + tl.arange(0, BI)
        x = tl.load(x_ptr + i, mask=i < inputs, other=0.0).to(tl.float32)
        square += x * x
        x *= tl.load(gain_ptr + i, mask=i < inputs, other=0.0).to(tl.float32)
        gained += x * x
        seen += weight * x
        length += weight * weight
        beyond = i + BI < inputs
        weight = tl.load(of_selector + first + BI, mask=beyond & is_selector, other=0.0).to(tl.float32)
        weight += tl.load(of_gate + first + BI, mask=beyond & (row >= selectors), other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(square, 0) / inputs + epsilon)
    tl.store(seen_ptr + row, tl.sum(seen, 0) * scale)
    tl.store(square_ptr + row, tl.sum(length, 0))
    if row == 0:
        tl.store(factor_ptr, scale * tl.rsqrt(tl.sum(gained, 0) / inputs * scale * scale + epsilon))


@triton.jit
def _chosen(
    seen_ptr, square_ptr, bias, ticks, rate, experts, rank, least, choice,
    ACTIVE: tl.constexpr, EXPERTS: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    """The expert of one choice, in ascending order, and what its output is multiplied by: as ops/grove's choice."""
    e, q = tl.arange(0, EXPERTS), tl.arange(0, RANK)
    is_expert = e < experts
    there = is_expert[:, None] & (q[None, :] < rank)
    place = e[:, None] * rank + q[None, :]
    seen = tl.load(seen_ptr + place, mask=there, other=0.0).to(tl.float32)
    square = tl.load(square_ptr + place, mask=there, other=0.0).to(tl.float32)
    scale = tl.sqrt(tl.sum(square, 1))
    score = tl.sqrt(tl.sum(seen * seen, 1)) / tl.where(is_expert, scale, 1.0)
    key = score + ticks.to(tl.float32) * rate
    # NaN is chosen first, so that it is seen, and what is no expert never.
    key = tl.where(key != key, float("inf"), key)
    is_free = is_expert
    for _ in tl.static_range(ACTIVE):
        best = tl.max(tl.where(is_free, key, float("-inf")), 0)
        first = tl.min(tl.where(is_free & (key == best), e, EXPERTS), 0)
        is_free = is_free & (e != first)
    is_chosen = is_expert & (is_free == 0)
    total = tl.sum(tl.where(is_chosen, score, 0.0), 0)
    total = tl.where(total < least, least, total)
    logit = tl.load(seen_ptr + experts * rank + e, mask=is_expert, other=0.0).to(tl.float32) + bias.to(tl.float32)
    weight = score / total / (1.0 + tl.exp(-logit))
    is_mine = is_chosen & (tl.cumsum(is_chosen.to(tl.int32), 0) - 1 == choice)
    return tl.sum(tl.where(is_mine, e, 0), 0), tl.sum(tl.where(is_mine, weight, 0.0), 0)


@triton.jit
def enter_kernel(
    x_ptr, gain_ptr, factor_ptr, weight_ptr, out_ptr, expert_ptr, share_ptr, seen_ptr, square_ptr, bias_ptr, ticks_ptr,
    rate, experts, rank, least, inputs, outputs, inputs_each, slice_stride, limit, scale,
    ACTIVE: tl.constexpr, EXPERTS: tl.constexpr, RANK: tl.constexpr, CELLS: tl.constexpr, EARLY: tl.constexpr,
    BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """out (k, P, M): of each chosen subnet's first layer the sums over parts of the inputs; and the choice (k).

    The inputs are x times gain and factor; x must not be what the kernel before writes.
    """
    choice, part = tl.program_id(2), tl.program_id(1)
    last = tl.minimum((part + 1) * inputs_each, inputs)
    i = part * inputs_each + tl.arange(0, BI)
    x = tl.load(x_ptr + i, mask=i < last, other=0.0).to(tl.float32)
    x *= tl.load(gain_ptr + i, mask=i < last, other=0.0).to(tl.float32)
    e = tl.arange(0, EXPERTS)
    bias = tl.load(bias_ptr + e, mask=e < experts, other=0.0)
    ticks = tl.load(ticks_ptr + e, mask=e < experts, other=0)
    _wait(EARLY)
    factor = tl.load(factor_ptr)
    expert, share = _chosen(
        seen_ptr, square_ptr, bias, ticks, rate, experts, rank, least, choice, ACTIVE, EXPERTS, RANK
    )
    if (part == 0) & (tl.program_id(0) == 0):
        tl.store(expert_ptr + choice, expert.to(tl.int64))
        tl.store(share_ptr + choice, share)
    weight_ptr += expert.to(tl.int64) * (CELLS + 4) * slice_stride
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    total = tl.zeros((BI, BO), tl.float32)
    for first in range(part * inputs_each, last, BI):
        i = first + tl.arange(0, BI)
        total += live_edges(x * factor, i, o, weight_ptr, last, outputs, slice_stride, limit, scale, CELLS)
        x = tl.load(x_ptr + BI + i, mask=i + BI < last, other=0.0).to(tl.float32)
        x *= tl.load(gain_ptr + BI + i, mask=i + BI < last, other=0.0).to(tl.float32)
    place = out_ptr + (choice * tl.num_programs(1) + part) * outputs + o
    tl.store(place, tl.sum(total, 0), mask=o < outputs)


@triton.jit
def leave_kernel(
    parts_ptr, weight_ptr, x_ptr, out_ptr, expert_ptr, share_ptr, parts, inputs, outputs, slice_stride,
    limit, scale, epsilon,
    ACTIVE: tl.constexpr, CHOICES: tl.constexpr, CELLS: tl.constexpr, EARLY: tl.constexpr,
    PARTS: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """out (D) = x + sum over the chosen subnets of share * second layer, of the first layer's parts (k, P, M).

    The inputs of all chosen subnets stand in one tile, BI of each. x must not be what the kernel before writes.
    """
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    p, c = tl.arange(0, PARTS), tl.arange(0, CHOICES)
    row = tl.arange(0, CHOICES * BI)
    choice = row // BI
    x = tl.load(x_ptr + o, mask=o < outputs, other=0.0).to(tl.float32)
    _wait(EARLY)
    expert = tl.load(expert_ptr + choice, mask=choice < ACTIVE, other=0)
    share = tl.load(share_ptr + choice, mask=choice < ACTIVE, other=0.0).to(tl.float32)
    is_mine = choice[None, :] == c[:, None]
    square = tl.zeros((CHOICES,), tl.float32)
    hidden = tl.zeros((CHOICES * BI,), tl.float32)
    for first in range(0, inputs, BI):
        i = first + row % BI
        there = (p[:, None] < parts) & (i[None, :] < inputs) & (choice[None, :] < ACTIVE)
        place = parts_ptr + (choice[None, :] * parts + p[:, None]) * inputs + i[None, :]
        hidden = tl.sum(tl.load(place, mask=there, other=0.0).to(tl.float32), 0)
        square += tl.sum(tl.where(is_mine, (hidden * hidden)[None, :], 0.0), 1)
    root = tl.rsqrt(square / inputs + epsilon)
    root = tl.sum(tl.where(is_mine, root[:, None], 0.0), 0)
    total = tl.zeros((CHOICES * BI, BO), tl.float32)
    for first in range(0, inputs, BI):
        i = first + row % BI
        if inputs > BI:
            there = (p[:, None] < parts) & (i[None, :] < inputs) & (choice[None, :] < ACTIVE)
            place = parts_ptr + (choice[None, :] * parts + p[:, None]) * inputs + i[None, :]
            hidden = tl.sum(tl.load(place, mask=there, other=0.0).to(tl.float32), 0)
        begin = weight_ptr + expert * (CELLS + 4) * slice_stride
        y = live_edges(hidden * root, i, o, begin[:, None], inputs, outputs, slice_stride, limit, scale, CELLS)
        total += share[:, None] * y
    tl.store(out_ptr + o, (x + tl.sum(total, 0)).to(out_ptr.dtype.element_ty), mask=o < outputs)


@triton.jit
def _silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def ada_kernel(
    qkv_ptr, logit_ptr, position_ptr, sum_ptr, tail_ptr, gain_ptr, out_ptr, heads, root, epsilon, fastest, pace,
    SIZE: tl.constexpr, TAPS: tl.constexpr, EARLY: tl.constexpr, BC: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """Diffusion attention of one head: queries and keys scaled, the state brought up to the token, the output scaled.

    The state sum (H, C, C) and the last keys (H, TAPS - 1, C) are written over. Decays are 1 - 2^-(fastest + pace h).
    """
    head = tl.program_id(0)
    c, v, w = tl.arange(0, BC), tl.arange(0, BC), tl.arange(0, BW)
    goes_on = tl.load(position_ptr) > 0
    there = (c[:, None] < SIZE) & (v[None, :] < SIZE)
    state = sum_ptr + head.to(tl.int64) * SIZE * SIZE + c[:, None] * SIZE + v[None, :]
    before = tl.load(state, mask=there & goes_on, other=0.0).to(tl.float32)
    gain = tl.load(gain_ptr + v, mask=v < SIZE, other=0.0).to(tl.float32)
    # Key w before the token's; its own is not there yet.
    tail = tail_ptr + (head * (TAPS - 1) + w[None, :] - 1) * SIZE + c[:, None]
    is_older = (c[:, None] < SIZE) & (w[None, :] > 0) & (w[None, :] < TAPS) & goes_on
    older = tl.load(tail, mask=is_older, other=0.0).to(tl.float32)
    is_tap = (c[:, None] < SIZE) & (w[None, :] < TAPS)
    logit = tl.load(logit_ptr + (head * SIZE + c[:, None]) * TAPS + w[None, :], mask=is_tap, other=float("-inf"))
    logit = tl.where(c[:, None] < SIZE, logit.to(tl.float32), 0.0)
    tap = tl.exp(logit - tl.max(logit, 1)[:, None])
    tap /= tl.sum(tap, 1)[:, None]
    _wait(EARLY)
    q = tl.load(qkv_ptr + head * SIZE + c, mask=c < SIZE, other=0.0).to(tl.float32)
    k = tl.load(qkv_ptr + (heads + head) * SIZE + c, mask=c < SIZE, other=0.0).to(tl.float32)
    value = tl.load(qkv_ptr + (2 * heads + head) * SIZE + v, mask=v < SIZE, other=0.0).to(tl.float32)
    q *= tl.rsqrt(tl.sum(q * q, 0) / SIZE + epsilon)
    k = (k * tl.rsqrt(tl.sum(k * k, 0) / SIZE + epsilon)).to(tail_ptr.dtype.element_ty)
    keys = tl.where(w[None, :] == 0, k.to(tl.float32)[:, None], older)
    key = _silu(tl.sum(keys * tap, 1))
    kept = 1.0 - tl.exp2(-(fastest + pace * head))
    after = before * kept + key[:, None] * value[None, :]
    out = tl.sum(_silu(q)[:, None] * after, 0) * root
    out *= tl.rsqrt(tl.sum(out * out, 0) / SIZE + epsilon)
    tl.store(out_ptr + head * SIZE + v, (out * gain).to(out_ptr.dtype.element_ty), mask=v < SIZE)
    tl.store(state, after.to(sum_ptr.dtype.element_ty), mask=there)
    # Every key is one older; all are read before one is written.
    tl.debug_barrier()
    is_kept = (c[:, None] < SIZE) & (w[None, :] < TAPS - 1)
    tl.store(tail + SIZE, keys.to(tail_ptr.dtype.element_ty), mask=is_kept)


@triton.jit
def _half(x_ptr, gain_ptr, p, size, epsilon, NORMED: tl.constexpr):
    """Both halves of a head's channels, scaled to a root mean square of 1 times a gain where NORMED."""
    half = size // 2
    left = tl.load(x_ptr + p, mask=p < half, other=0.0).to(tl.float32)
    right = tl.load(x_ptr + half + p, mask=p < half, other=0.0).to(tl.float32)
    if NORMED:
        root = tl.rsqrt(tl.sum(left * left + right * right, 0) / size + epsilon)
        left *= root * tl.load(gain_ptr + p, mask=p < half, other=0.0).to(tl.float32)
        right *= root * tl.load(gain_ptr + half + p, mask=p < half, other=0.0).to(tl.float32)
    return left, right


@triton.jit
def turn_kernel(
    qkv_ptr, query_gain_ptr, key_gain_ptr, cos_ptr, sin_ptr, position_ptr, q_ptr, key_ptr, value_ptr,
    heads, slots, size, epsilon,
    NORMED: tl.constexpr, EARLY: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """Of one head: the query turned to its place, and the key turned and the value, in their slot of the caches."""
    head, half = tl.program_id(0), size // 2
    p = tl.arange(0, BP)
    there = p < half
    place = (head.to(tl.int64) * slots + tl.load(position_ptr)) * size + p
    cos = tl.load(cos_ptr + p, mask=there, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + p, mask=there, other=0.0).to(tl.float32)
    _wait(EARLY)
    left, right = _half(qkv_ptr + head * size, query_gain_ptr, p, size, epsilon, NORMED)
    number = q_ptr.dtype.element_ty
    tl.store(q_ptr + head * size + p, (left * cos - right * sin).to(number), mask=there)
    tl.store(q_ptr + head * size + half + p, (right * cos + left * sin).to(number), mask=there)
    left, right = _half(qkv_ptr + (heads + head) * size, key_gain_ptr, p, size, epsilon, NORMED)
    tl.store(key_ptr + place, (left * cos - right * sin).to(number), mask=there)
    tl.store(key_ptr + place + half, (right * cos + left * sin).to(number), mask=there)
    value = qkv_ptr + (2 * heads + head) * size + p
    tl.store(value_ptr + place, tl.load(value, mask=there, other=0.0), mask=there)
    tl.store(value_ptr + place + half, tl.load(value + half, mask=there, other=0.0), mask=there)
