"""Triton kernels of Arnold diffusion attention: a program walks the chunks of a segment with the state in registers.

launch.py launches them; nothing is checked here. README.md has the mathematics; gradients are in a file of their own.
States are turned, (C of values, C of keys), so that products read all inputs as they lie in memory. Letters: P pairs of
a row and a head, T tokens, L tokens of a chunk, N chunks, G segments of `walk` chunks, C head size, W taps; f is silu.
"""

import triton
import triton.language as tl

from .tiles_triton import (
    chunk_end,
    diffuse,
    left_share,
    load_places,
    load_state,
    load_tile,
    pair_weights,
    reach_share,
    silu,
    store_state,
    store_tile,
)


@triton.jit
def passed_kernel(
    decay_ptr, position_ptr, passed_ptr, tokens, chunks, heads, L: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """The log decays summed from each chunk's start, to base 2, (P, T), BN chunks at a time.

    What a document's first token would keep is nobody's, so its decay counts nothing.
    """
    pair = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    row = n[:, None] * L + tl.arange(0, L)[None, :]
    position = tl.load(position_ptr + pair // heads * tokens + row, mask=row < tokens, other=0)
    here = (row < tokens) & (position > 0)
    decay = tl.load(decay_ptr + pair * tokens + row, mask=here, other=0.0).to(tl.float32)
    passed = tl.cumsum(decay * 1.4426950408889634, 1)
    tl.store(passed_ptr + pair * tokens + row, passed, mask=row < tokens)


@triton.jit
def added_kernel(
    k_ptr, v_ptr, taps_ptr, passed_ptr, position_ptr, added_ptr, kept_ptr, tokens, chunks, walk, heads,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr,
    L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """What each segment adds to the state, (P, G, C, C), and what it keeps of the state before, (P, G)."""
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    k_ptr, v_ptr = k_ptr + pair * tokens * SIZE, v_ptr + pair * tokens * SIZE
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    taps_ptr += pair % heads * SIZE * TAPS
    c = tl.arange(0, BC)
    state, whole = tl.zeros((BC, BC), tl.float32), 1.0
    for n in range(segment * walk, tl.minimum(segment * walk + walk, chunks)):
        row = n * L + tl.arange(0, L)
        position, passed = load_places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = chunk_end(position_ptr, passed_ptr, n * L, tokens, L)
        v = load_tile(v_ptr, row, c, tokens, SIZE, EVEN)
        key = silu(diffuse(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN), PRECISION)
        key *= left_share(passed, row, total, last_first)[:, None]
        state = tl.dot(tl.trans(v), key.to(v.dtype), state * kept, input_precision=PRECISION)
        whole *= kept
    index = pair * tl.num_programs(0) + segment
    store_state(added_ptr, state, index, c, SIZE)
    tl.store(kept_ptr + index, whole)


@triton.jit
def scan_kernel(state_ptr, kept_ptr, segments, REVERSE: tl.constexpr, VALUES: tl.constexpr, BV: tl.constexpr):
    """In place of what segments add the state before each; reversed, the gradient of that after each."""
    pair = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BV + tl.arange(0, BV)
    state = tl.zeros((BV,), tl.float32)
    for step in tl.range(segments, num_stages=4):
        n = pair * segments + (segments - 1 - step if REVERSE else step)
        added = tl.load(state_ptr + n * VALUES + i, mask=i < VALUES, other=0.0).to(tl.float32)
        kept = tl.load(kept_ptr + n).to(tl.float32)
        tl.store(state_ptr + n * VALUES + i, state, mask=i < VALUES)
        state = kept * state + added


@triton.jit
def output_kernel(
    q_ptr, k_ptr, v_ptr, taps_ptr, passed_ptr, position_ptr, start_ptr, before_ptr, out_ptr, end_ptr,
    tokens, chunks, walk, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, WHOLE: tl.constexpr,
    L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """o (P, T, C); the state before each chunk (P, N, C, C) as products read it, and the last (P, C, C), not
    turned.

    start: the state before each segment, (P, G, C, C); not read where a segment is a WHOLE row.
    """
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    base = pair * tokens * SIZE
    q_ptr, k_ptr, v_ptr, out_ptr = q_ptr + base, k_ptr + base, v_ptr + base, out_ptr + base
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    taps_ptr += pair % heads * SIZE * TAPS
    c, scale = tl.arange(0, BC), tl.log2(root)
    state = tl.zeros((BC, BC), tl.float32)
    if not WHOLE:
        state = load_state(start_ptr, pair * tl.num_programs(0) + segment, c, SIZE).to(tl.float32)
    for n in range(segment * walk, tl.minimum(segment * walk + walk, chunks)):
        row = n * L + tl.arange(0, L)
        position, passed = load_places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = chunk_end(position_ptr, passed_ptr, n * L, tokens, L)
        v = load_tile(v_ptr, row, c, tokens, SIZE, EVEN)
        key = silu(diffuse(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN), PRECISION)
        q = silu(load_tile(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION).to(v.dtype)
        before = state.to(v.dtype)
        store_state(before_ptr, before, pair * chunks + n, c, SIZE)
        left_key = (key * left_share(passed, row, total, last_first)[:, None]).to(v.dtype)
        score = tl.dot(q, tl.trans(key.to(v.dtype)), input_precision=PRECISION)
        score = (score * pair_weights(passed, position, row, scale, PRECISION)).to(v.dtype)
        out = (
            tl.dot(q, tl.trans(before), input_precision=PRECISION)
            * reach_share(passed, position, row, n * L, scale)[:, None]
        )
        out = tl.dot(score, v, out, input_precision=PRECISION)
        store_tile(out_ptr, out, row, c, tokens, SIZE, EVEN)
        state = tl.dot(tl.trans(v), left_key, state * kept, input_precision=PRECISION)
    if segment == tl.num_programs(0) - 1:
        store_state(end_ptr, tl.trans(state), pair, c, SIZE)


@triton.jit
def step_kernel(
    q_ptr, k_ptr, v_ptr, taps_ptr, decay_ptr, position_ptr, before_ptr, tail_ptr, after_ptr, tail_out_ptr, out_ptr,
    heads, root, SIZE: tl.constexpr, TAPS: tl.constexpr, BC: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """One token of one head: the state after it (C, C), the keys that stay, and its output, BV values at a time."""
    pair, first = tl.program_id(0), tl.program_id(1) * BV
    head = pair % heads
    c, v = tl.arange(0, BC), first + tl.arange(0, BV)
    goes_on = tl.load(position_ptr + pair // heads) > 0
    k = tl.load(k_ptr + pair * SIZE + c, mask=c < SIZE, other=0.0)
    taps = taps_ptr + (head * SIZE + c) * TAPS
    key = k.to(tl.float32) * tl.load(taps, mask=c < SIZE, other=0.0).to(tl.float32)
    newer = k
    # The first of a head's programs moves the keys along; all of them read the old ones.
    for j in tl.static_range(1, TAPS):
        place = (pair * (TAPS - 1) + j - 1) * SIZE + c
        older = tl.load(tail_ptr + place, mask=(c < SIZE) & goes_on, other=0.0)
        key += older.to(tl.float32) * tl.load(taps + j, mask=c < SIZE, other=0.0).to(tl.float32)
        tl.store(tail_out_ptr + place, newer, mask=(c < SIZE) & (first == 0))
        newer = older
    key = tl.where(c < SIZE, silu(key, "ieee"), 0.0)
    there = (c[:, None] < SIZE) & (v[None, :] < SIZE)
    place = pair.to(tl.int64) * SIZE * SIZE + c[:, None] * SIZE + v[None, :]
    before = tl.load(before_ptr + place, mask=there & goes_on, other=0.0).to(tl.float32)
    value = tl.load(v_ptr + pair * SIZE + v, mask=v < SIZE, other=0.0).to(tl.float32)
    after = before * tl.exp(tl.load(decay_ptr + pair).to(tl.float32)) + key[:, None] * value[None, :]
    tl.store(after_ptr + place, after.to(after_ptr.dtype.element_ty), mask=there)
    q = silu(tl.load(q_ptr + pair * SIZE + c, mask=c < SIZE, other=0.0).to(tl.float32), "ieee")
    out = tl.sum(q[:, None] * after, 0) * root
    tl.store(out_ptr + pair * SIZE + v, out.to(out_ptr.dtype.element_ty), mask=v < SIZE)
