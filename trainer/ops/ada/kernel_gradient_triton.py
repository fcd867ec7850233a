"""Triton kernels of diffusion attention's gradients: a program walks a segment's chunks from the last to the first.

launch.py launches them; nothing is checked here. README.md has the mathematics. States are turned, (C of values, C of
keys). Letters: P pairs of a row and a head, T tokens, L tokens of a chunk, N chunks, G segments of `walk` chunks, C
head size, W taps; f is silu.
"""

import triton
import triton.language as tl

from .tiles_triton import (
    chunk_end,
    diffuse,
    left_share,
    load_places,
    load_state,
    load_tap,
    load_tile,
    pair_weights,
    pair_weights_turned,
    reach_share,
    silu,
    silu_and_slope,
    store_state,
    store_tile,
    wait_for_all,
)


@triton.jit
def query_gradient_kernel(
    q_ptr, k_ptr, v_ptr, taps_ptr, passed_ptr, position_ptr, before_ptr, grad_ptr,
    grad_q_ptr, diffused_ptr, gained_ptr, asked_ptr, kept_ptr, tokens, chunks, walk, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, WHOLE: tl.constexpr,
    L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient of q, from the last chunk to the first; and what the keys' gradients want, from the same inputs.

    That is k~ (P, T, C), and what each segment asks of the state before it: the part of its gradient, (P, G, C, C),
    and what it keeps, (P, G); neither where a segment is a WHOLE row. For the decays the product of f(q) and
    its gradient, (P, T).
    """
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    base = pair * tokens * SIZE
    q_ptr, k_ptr, v_ptr, grad_ptr = q_ptr + base, k_ptr + base, v_ptr + base, grad_ptr + base
    grad_q_ptr, diffused_ptr, gained_ptr = grad_q_ptr + base, diffused_ptr + base, gained_ptr + pair * tokens
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    taps_ptr += pair % heads * SIZE * TAPS
    c, scale = tl.arange(0, BC), tl.log2(root)
    asked, whole = tl.zeros((BC, BC), tl.float32), 1.0
    end = tl.minimum(segment * walk + walk, chunks)
    for step in range(end - segment * walk):
        n = end - 1 - step
        row = n * L + tl.arange(0, L)
        position, passed = load_places(position_ptr, passed_ptr, row, tokens, EVEN)
        reach = reach_share(passed, position, row, n * L, scale)
        v, grad = load_tile(v_ptr, row, c, tokens, SIZE, EVEN), load_tile(grad_ptr, row, c, tokens, SIZE, EVEN)
        # As the keys' gradients will read it: for the decays both must round alike, or what should cancel does not.
        diffused = diffuse(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN).to(v.dtype)
        store_tile(diffused_ptr, diffused, row, c, tokens, SIZE, EVEN)
        before = load_state(before_ptr, pair * chunks + n, c, SIZE)
        key = silu(diffused.to(tl.float32), PRECISION).to(v.dtype)
        pull = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        pull = (pull * pair_weights(passed, position, row, scale, PRECISION)).to(v.dtype)
        grad_q = tl.dot(grad, before, input_precision=PRECISION) * reach[:, None]
        grad_q = tl.dot(pull, key, grad_q, input_precision=PRECISION)
        q, slope = silu_and_slope(load_tile(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION)
        tl.store(gained_ptr + row, tl.sum(grad_q * q.to(v.dtype).to(tl.float32), 1), mask=row < tokens)
        store_tile(grad_q_ptr, grad_q * slope, row, c, tokens, SIZE, EVEN)
        if not WHOLE:
            _, _, kept = chunk_end(position_ptr, passed_ptr, n * L, tokens, L)
            asking = (q * reach[:, None]).to(v.dtype)
            asked = tl.dot(tl.trans(grad), asking, asked * kept, input_precision=PRECISION)
            whole *= kept
    if not WHOLE:
        index = pair * tl.num_programs(0) + segment
        store_state(asked_ptr, asked, index, c, SIZE)
        tl.store(kept_ptr + index, whole)


@triton.jit
def key_gradient_kernel(
    q_ptr, v_ptr, passed_ptr, position_ptr, before_ptr, after_ptr, grad_ptr,
    grad_k_ptr, grad_v_ptr, head_ptr, spent_ptr, worth_ptr, tokens, chunks, walk, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, WHOLE: tl.constexpr,
    L: tl.constexpr, BC: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Gradients of the diffused keys and of v, from the last chunk to the first.

    grad_k: the diffused keys, in whose place their gradients come. head: of the latter the first W - 1 rows of each
    chunk, (P, N, W - 1, C). For the decays: the product of f(k~) and its gradient (P, T), and the worth of the state
    before each chunk, (P, N, C) to be summed, README.md. after: the gradient of the state after each segment,
    (P, G, C, C); not read where a segment is a WHOLE row.
    """
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    base = pair * tokens * SIZE
    q_ptr, v_ptr, grad_ptr = q_ptr + base, v_ptr + base, grad_ptr + base
    grad_k_ptr, grad_v_ptr, spent_ptr = grad_k_ptr + base, grad_v_ptr + base, spent_ptr + pair * tokens
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    c, scale = tl.arange(0, BC), tl.log2(root)
    after = tl.zeros((BC, BC), tl.float32)
    if not WHOLE:
        after = load_state(after_ptr, pair * tl.num_programs(0) + segment, c, SIZE).to(tl.float32)
    end = tl.minimum(segment * walk + walk, chunks)
    # Stages told, Triton loads ahead for more than products: the states, and the keys read again.
    for step in tl.range(end - segment * walk, num_stages=STAGES):
        n = end - 1 - step
        row = n * L + tl.arange(0, L)
        position, passed = load_places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = chunk_end(position_ptr, passed_ptr, n * L, tokens, L)
        left = left_share(passed, row, total, last_first)
        v, grad = load_tile(v_ptr, row, c, tokens, SIZE, EVEN), load_tile(grad_ptr, row, c, tokens, SIZE, EVEN)
        key = silu(load_tile(grad_k_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION).to(v.dtype)
        q = silu(load_tile(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION)
        asking = (q * reach_share(passed, position, row, n * L, scale)[:, None]).to(v.dtype)
        q = q.to(v.dtype)
        narrow_after = after.to(v.dtype)
        # (s, t): the product of a key and a query, and its gradient.
        weights = pair_weights_turned(passed, position, row, scale, PRECISION)
        score = (tl.dot(key, tl.trans(q), input_precision=PRECISION) * weights).to(v.dtype)
        grad_v = tl.dot(key, tl.trans(narrow_after), input_precision=PRECISION) * left[:, None]
        grad_v = tl.dot(score, grad, grad_v, input_precision=PRECISION)
        store_tile(grad_v_ptr, grad_v, row, c, tokens, SIZE, EVEN)
        pull = (tl.dot(v, tl.trans(grad), input_precision=PRECISION) * weights).to(v.dtype)
        grad_key = tl.dot(v, narrow_after, input_precision=PRECISION) * left[:, None]
        grad_key = tl.dot(pull, q, grad_key, input_precision=PRECISION)
        # Read again, for registers are dearer.
        diffused = load_tile(grad_k_ptr, row, c, tokens, SIZE, EVEN)
        value, slope = silu_and_slope(diffused.to(tl.float32), PRECISION)
        tl.store(spent_ptr + row, tl.sum(grad_key * value.to(v.dtype).to(tl.float32), 1), mask=row < tokens)
        grad_key *= slope
        store_tile(grad_k_ptr, grad_key, row, c, tokens, SIZE, EVEN)
        _store_head(head_ptr + (pair * chunks + n) * (SIZE * (TAPS - 1)), grad_key, row - n * L, c, SIZE, TAPS)
        after = tl.dot(tl.trans(grad), asking, after * kept, input_precision=PRECISION)
        before = load_state(before_ptr, pair * chunks + n, c, SIZE).to(tl.float32)
        tl.store(worth_ptr + (pair * chunks + n) * SIZE + c, tl.sum(after * before, 1), mask=c < SIZE)


@triton.jit
def _store_head(head_ptr, value, row, c, SIZE: tl.constexpr, TAPS: tl.constexpr):
    there = (row[:, None] < TAPS - 1) & (c[None, :] < SIZE)
    tl.store(head_ptr + row[:, None] * SIZE + c[None, :], value.to(head_ptr.dtype.element_ty), mask=there)


@triton.jit
def decay_gradient_kernel(
    position_ptr, gained_ptr, spent_ptr, worth_ptr, grad_decay_ptr, tokens, chunks, heads,
    SIZE: tl.constexpr, L: tl.constexpr, BC: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The log decays' gradients: each sum of decays enters by its last token and leaves by its first.

    The state after the chunk, with the worth that later chunks give it, has passed all of the chunk's decays.
    """
    pair = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    row = n[:, None] * L + tl.arange(0, L)[None, :]
    there = row < tokens
    position = tl.load(position_ptr + pair // heads * tokens + row, mask=there, other=0)
    balance = tl.load(gained_ptr + pair * tokens + row, mask=there, other=0.0).to(tl.float32)
    balance -= tl.load(spent_ptr + pair * tokens + row, mask=there, other=0.0).to(tl.float32)
    c, after = tl.arange(0, BC), n + 1
    of_next = (after < chunks)[:, None] & (c[None, :] < SIZE)
    worth = tl.load(worth_ptr + (pair * chunks + after)[:, None] * SIZE + c[None, :], mask=of_next, other=0.0)
    later = tl.sum(balance, 1)[:, None] - tl.cumsum(balance, 1) + balance
    grad_decay = tl.where(position > 0, later + tl.sum(worth.to(tl.float32), 1)[:, None], 0.0)
    tl.store(grad_decay_ptr + pair * tokens + row, grad_decay, mask=there)


@triton.jit
def diffusion_gradient_kernel(
    grad_k_ptr, k_ptr, taps_ptr, position_ptr, head_ptr, grad_taps_ptr, tokens, chunks, walk, heads,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, L: tl.constexpr,
    BC: tl.constexpr, BR: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dk_t = sum over j of a_j dk~_(t+j) within the document, in the place of dk~; each segment's of the taps.

    BR rows at a time, upwards, so that those below are still dk~; of the next segment's, which may be gone, `head` has
    the first. Taps' gradients are (P, G, W, C): tap j's is the sum of k_t dk~_(t+j).
    """
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c, end = tl.arange(0, BC), tl.minimum((segment + 1) * walk * L, tokens)
    grad_k_ptr, k_ptr = grad_k_ptr + pair * tokens * SIZE, k_ptr + pair * tokens * SIZE
    position_ptr += pair // heads * tokens
    taps_ptr += pair % heads * SIZE * TAPS
    head_ptr += (pair * chunks + (segment + 1) * walk) * (SIZE * (TAPS - 1))
    grad_taps_ptr += (pair * tl.num_programs(0) + segment) * (SIZE * TAPS)
    of_taps = ()
    for _ in tl.static_range(TAPS):
        of_taps += (tl.zeros((BR, BC), tl.float32),)
    # Loading rows ahead is right: what is written lies before them.
    for begin in tl.range(segment * walk * L, end, BR, num_stages=STAGES):
        row = begin + tl.arange(0, BR)
        k = load_tile(k_ptr, row, c, end, SIZE, EVEN).to(tl.float32)
        own = load_tile(grad_k_ptr, row, c, end, SIZE, EVEN).to(tl.float32)
        grad_k = own * load_tap(taps_ptr, 0, c, SIZE)[None, :]
        products = (of_taps[0] + own * k,)
        for j in tl.static_range(1, TAPS):
            goes_on = tl.load(position_ptr + row + j, mask=row + j < tokens, other=0) >= j
            grad = _load_later(grad_k_ptr, head_ptr, row + j, tokens, c, end, SIZE)
            grad = tl.where(goes_on[:, None], grad, 0.0)
            grad_k += grad * load_tap(taps_ptr, j, c, SIZE)[None, :]
            products += (of_taps[j] + grad * k,)
        of_taps = products
        # All have read before any writes.
        wait_for_all(PRECISION)
        store_tile(grad_k_ptr, grad_k, row, c, end, SIZE, EVEN)
    for j in tl.static_range(TAPS):
        tl.store(grad_taps_ptr + j * SIZE + c, tl.sum(of_taps[j], 0), mask=c < SIZE)


@triton.jit
def _load_later(x_ptr, head_ptr, row, tokens, c, end, SIZE: tl.constexpr):
    """Rows of the segment, those after its end from `head`."""
    place = tl.where(row < end, x_ptr + row * SIZE, head_ptr + (row - end) * SIZE)
    there = (row < tokens)[:, None] & (c[None, :] < SIZE)
    return tl.load(place[:, None] + c[None, :], mask=there, other=0.0).to(tl.float32)
