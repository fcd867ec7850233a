"""Triton kernels of range attention: each query meets the keys whose place is between two places of its own.

A window and the blocks before it are both of that kind, and a pass with MORE goes on from what the one before left, so
that one softmax is over the keys of all. launch.py launches them and tells each program its range of keys or queries;
nothing is checked here. Sums are in float32.
Letters: B rows, H heads, T queries, M keys, C channels. Places, lows and highs never fall from one entry to the next.
"""

import triton
import triton.language as tl

# Beyond every place.
FAR = tl.constexpr(1 << 30)


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, spot_ptr, low_ptr, high_ptr, first_ptr, last_ptr, o_ptr, lse_ptr,
    heads, tokens, keys, size, scale, bias,
    MORE: tl.constexpr, PRECISION: tl.constexpr, BT: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """o = sum over visible m of softmax(q . k_m scale + bias) v_m, and the logarithm of the softmax's sum.

    With MORE both hold those over other keys before.
    """
    tile, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b = row // heads
    t, c = tile * BT + tl.arange(0, BT), tl.arange(0, BC)
    there = (t[:, None] < tokens) & (c[None, :] < size)
    q = tl.load(q_ptr + (row * tokens + t[:, None]) * size + c[None, :], mask=there, other=0.0)
    low = tl.load(low_ptr + b * tokens + t, mask=t < tokens, other=FAR)
    high = tl.load(high_ptr + b * tokens + t, mask=t < tokens, other=-1)
    last = tl.load(last_ptr + b * tl.num_programs(0) + tile)
    most = tl.full((BT,), float("-inf"), tl.float32)
    whole = tl.zeros((BT,), tl.float32)
    total = tl.zeros((BT, BC), tl.float32)
    place = (row * tokens + t[:, None]) * size + c[None, :]
    if MORE:
        most = tl.load(lse_ptr + row * tokens + t, mask=t < tokens, other=float("-inf")).to(tl.float32)
        whole = tl.where(most == float("-inf"), 0.0, 1.0)
        total = tl.load(o_ptr + place, mask=there, other=0.0).to(tl.float32)
    for begin in range(tl.load(first_ptr + b * tl.num_programs(0) + tile), last, BM):
        m = begin + tl.arange(0, BM)
        spot = tl.load(spot_ptr + b * keys + m, mask=m < last, other=FAR)
        inside = (m[:, None] < last) & (c[None, :] < size)
        k = tl.load(k_ptr + (row * keys + m[:, None]) * size + c[None, :], mask=inside, other=0.0)
        v = tl.load(v_ptr + (row * keys + m[:, None]) * size + c[None, :], mask=inside, other=0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + bias
        visible = (spot[None, :] >= low[:, None]) & (spot[None, :] <= high[:, None])
        score = tl.where(visible, score, float("-inf"))
        higher = tl.maximum(most, tl.max(score, 1))
        # Nothing visible yet: any finite number keeps the difference from being NaN.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp(score - base[:, None])
        shrink = tl.exp(most - base)
        whole = whole * shrink + tl.sum(weight, 1)
        total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
        most = higher
    divisor = tl.where(whole == 0.0, 1.0, whole)
    o = total / divisor[:, None]
    lse = tl.where(whole == 0.0, float("-inf"), most + tl.log(divisor))
    tl.store(o_ptr + place, o.to(o_ptr.dtype.element_ty), mask=there)
    tl.store(lse_ptr + row * tokens + t, lse, mask=t < tokens)


@triton.jit
def _weights(score, lse, spot, low, high):
    """Softmax weights of keys (rows) and queries (columns), or the other way round, by places that fit each other."""
    return tl.where((spot >= low) & (spot <= high), tl.exp(score - lse), 0.0)


@triton.jit
def query_gradient_kernel(
    q_ptr, k_ptr, v_ptr, spot_ptr, low_ptr, high_ptr, first_ptr, last_ptr, grad_ptr, lse_ptr, delta_ptr, out_ptr,
    o_ptr, grad_lse_ptr, heads, tokens, keys, size, scale, bias,
    MORE: tl.constexpr, LSE: tl.constexpr, PRECISION: tl.constexpr,
    BT: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dq = scale sum over visible m of w_m (do . v_m - delta) k_m; delta = do . o, with LSE less the sum's gradient.

    delta is written, for the other kernels; with MORE it is read, and out holds what other keys gave.
    """
    tile, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    b = row // heads
    t, c = tile * BT + tl.arange(0, BT), tl.arange(0, BC)
    there = (t[:, None] < tokens) & (c[None, :] < size)
    place = (row * tokens + t[:, None]) * size + c[None, :]
    q = tl.load(q_ptr + place, mask=there, other=0.0)
    grad = tl.load(grad_ptr + place, mask=there, other=0.0)
    lse = tl.load(lse_ptr + row * tokens + t, mask=t < tokens, other=0.0).to(tl.float32)
    if MORE:
        delta = tl.load(delta_ptr + row * tokens + t, mask=t < tokens, other=0.0).to(tl.float32)
        former = tl.load(out_ptr + place, mask=there, other=0.0).to(tl.float32)
    else:
        o = tl.load(o_ptr + place, mask=there, other=0.0).to(tl.float32)
        delta = tl.sum(o * grad.to(tl.float32), 1)
        if LSE:
            delta -= tl.load(grad_lse_ptr + row * tokens + t, mask=t < tokens, other=0.0).to(tl.float32)
        tl.store(delta_ptr + row * tokens + t, delta, mask=t < tokens)
        former = tl.zeros((BT, BC), tl.float32)
    low = tl.load(low_ptr + b * tokens + t, mask=t < tokens, other=FAR)
    high = tl.load(high_ptr + b * tokens + t, mask=t < tokens, other=-1)
    last = tl.load(last_ptr + b * tl.num_programs(0) + tile)
    total = tl.zeros((BT, BC), tl.float32)
    for begin in range(tl.load(first_ptr + b * tl.num_programs(0) + tile), last, BM):
        m = begin + tl.arange(0, BM)
        spot = tl.load(spot_ptr + b * keys + m, mask=m < last, other=FAR)
        inside = (m[:, None] < last) & (c[None, :] < size)
        k = tl.load(k_ptr + (row * keys + m[:, None]) * size + c[None, :], mask=inside, other=0.0)
        v = tl.load(v_ptr + (row * keys + m[:, None]) * size + c[None, :], mask=inside, other=0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + bias
        weight = _weights(score, lse[:, None], spot[None, :], low[:, None], high[:, None])
        of_score = weight * (tl.dot(grad, tl.trans(v), input_precision=PRECISION) - delta[:, None])
        total = tl.dot(of_score.to(k.dtype), k, total, input_precision=PRECISION)
    tl.store(out_ptr + place, (former + total * scale).to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def key_gradient_kernel(
    q_ptr, k_ptr, v_ptr, spot_ptr, low_ptr, high_ptr, first_ptr, last_ptr, grad_ptr, lse_ptr, delta_ptr,
    key_out_ptr, value_out_ptr, heads, tokens, keys, size, scale, bias,
    PRECISION: tl.constexpr, BT: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dk = scale sum over seeing t of w_t (do_t . v - delta_t) q_t, and dv = sum of w_t do_t; (S, B, H, M, C) both.

    The queries of a tile are cut into S parts, each a program's.
    """
    tile, row, part = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    b = row // heads
    m, c = tile * BM + tl.arange(0, BM), tl.arange(0, BC)
    there = (m[:, None] < keys) & (c[None, :] < size)
    place = (row * keys + m[:, None]) * size + c[None, :]
    k = tl.load(k_ptr + place, mask=there, other=0.0)
    v = tl.load(v_ptr + place, mask=there, other=0.0)
    spot = tl.load(spot_ptr + b * keys + m, mask=m < keys, other=FAR)
    first = tl.load(first_ptr + b * tl.num_programs(0) + tile)
    last = tl.load(last_ptr + b * tl.num_programs(0) + tile)
    each = tl.cdiv(tl.cdiv(tl.maximum(last - first, 0), BT), tl.num_programs(2)) * BT
    first += part * each
    last = tl.minimum(last, first + each)
    of_key = tl.zeros((BM, BC), tl.float32)
    of_value = tl.zeros((BM, BC), tl.float32)
    for begin in range(first, last, BT):
        t = begin + tl.arange(0, BT)
        inside = (t[:, None] < last) & (c[None, :] < size)
        q = tl.load(q_ptr + (row * tokens + t[:, None]) * size + c[None, :], mask=inside, other=0.0)
        grad = tl.load(grad_ptr + (row * tokens + t[:, None]) * size + c[None, :], mask=inside, other=0.0)
        lse = tl.load(lse_ptr + row * tokens + t, mask=t < last, other=0.0).to(tl.float32)
        delta = tl.load(delta_ptr + row * tokens + t, mask=t < last, other=0.0).to(tl.float32)
        low = tl.load(low_ptr + b * tokens + t, mask=t < last, other=FAR)
        high = tl.load(high_ptr + b * tokens + t, mask=t < last, other=-1)
        score = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale + bias
        weight = _weights(score, lse[None, :], spot[:, None], low[None, :], high[None, :])
        of_value = tl.dot(weight.to(grad.dtype), grad, of_value, input_precision=PRECISION)
        of_score = weight * (tl.dot(v, tl.trans(grad), input_precision=PRECISION) - delta[None, :])
        of_key = tl.dot(of_score.to(q.dtype), q, of_key, input_precision=PRECISION)
    place += part.to(tl.int64) * tl.num_programs(1) * keys * size
    tl.store(key_out_ptr + place, (of_key * scale).to(key_out_ptr.dtype.element_ty), mask=there)
    tl.store(value_out_ptr + place, of_value.to(value_out_ptr.dtype.element_ty), mask=there)
