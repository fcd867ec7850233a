"""Triton kernels of Arnold diffusion attention, in chunks that are independent but for a light scan over states.

launch.py launches them; nothing is checked here. README.md has the mathematics. Sums, decays and states are in float32.
Letters: P pairs of a row and a head, T tokens, L tokens of a chunk, N chunks, C head size, W taps; f is silu.
"""

import triton
import triton.language as tl


@triton.jit
def _silu(x):
    return x / (1.0 + tl.exp(-x))


@triton.jit
def _silu_slope(x):
    gate = 1.0 / (1.0 + tl.exp(-x))
    return gate * (1.0 + x * (1.0 - gate))


@triton.jit
def _load(x_ptr, row, c, tokens, SIZE: tl.constexpr):
    """A tile (L, C) of a (T, C) matrix, zero outside."""
    there = (row[:, None] >= 0) & (row[:, None] < tokens) & (c[None, :] < SIZE)
    return tl.load(x_ptr + row[:, None] * SIZE + c[None, :], mask=there, other=0.0)


@triton.jit
def _store(x_ptr, value, row, c, tokens, SIZE: tl.constexpr):
    there = (row[:, None] < tokens) & (c[None, :] < SIZE)
    tl.store(x_ptr + row[:, None] * SIZE + c[None, :], value.to(x_ptr.dtype.element_ty), mask=there)


@triton.jit
def _diffused(k_ptr, taps_ptr, position, row, c, tokens, SIZE: tl.constexpr, TAPS: tl.constexpr):
    """k~ (L, C) in float32: the sum over j < W of a_j k_(t-j) within the document."""
    total = tl.zeros((row.shape[0], c.shape[0]), tl.float32)
    for j in tl.static_range(TAPS):
        tap = tl.load(taps_ptr + c * TAPS + j, mask=c < SIZE, other=0.0).to(tl.float32)
        earlier = _load(k_ptr, row - j, c, tokens, SIZE).to(tl.float32)
        total += tl.where((position >= j)[:, None], earlier, 0.0) * tap[None, :]
    return total


@triton.jit
def _places(position_ptr, decay_ptr, row, tokens):
    """Of each token its place, its document's first row, and the log decay summed from the chunk's start.

    What a document's first token would keep is nobody's, so its decay counts nothing. Padding is of the last document
    and keeps all.
    """
    there = row < tokens
    position = tl.load(position_ptr + row, mask=there, other=1 << 30)
    decay = tl.load(decay_ptr + row, mask=there & (position > 0), other=0.0).to(tl.float32)
    return position, row - position, tl.cumsum(decay, 0), decay


@triton.jit
def _last(x, row, final):
    return tl.sum(tl.where(row == final, x, 0), 0)


@triton.jit
def _weights(passed, first, row):
    """(L, L): what a token keeps of another's contribution; zero where it does not see it."""
    seen = (row[None, :] <= row[:, None]) & (row[None, :] >= first[:, None])
    return tl.where(seen, tl.exp(tl.where(seen, passed[:, None] - passed[None, :], 0.0)), 0.0)


@triton.jit
def _borders(passed, first, row, tokens, L: tl.constexpr):
    """How much of the state before the chunk each token sees, and how much of each the state after it holds.

    Also how much of the former state is left in the latter.
    """
    begin = tl.min(row, 0)
    final = tl.minimum(begin + L, tokens) - 1
    total = _last(passed, row, final)
    last_first = _last(first, row, final)
    reach = tl.where(first < begin, tl.exp(passed), 0.0)
    left = tl.where((row >= last_first) & (row < tokens), tl.exp(tl.where(row < tokens, total - passed, 0.0)), 0.0)
    kept = tl.where(last_first < begin, tl.exp(total), 0.0)
    return reach, left, kept


@triton.jit
def added_kernel(
    k_ptr, v_ptr, taps_ptr, decay_ptr, position_ptr, added_ptr, kept_ptr, tokens, chunks, heads,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """What each chunk adds to the state, (P, N, C, C), and what it leaves of the state before, (P, N)."""
    n, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, c = n * L + tl.arange(0, L), tl.arange(0, BC)
    base, place = pair * tokens * SIZE, pair // heads * tokens
    position, first, passed, _ = _places(position_ptr + place, decay_ptr + pair * tokens, row, tokens)
    _, left, kept = _borders(passed, first, row, tokens, L)
    taps = taps_ptr + pair % heads * SIZE * TAPS
    key = _silu(_diffused(k_ptr + base, taps, position, row, c, tokens, SIZE, TAPS)) * left[:, None]
    v = _load(v_ptr + base, row, c, tokens, SIZE)
    added = tl.dot(tl.trans(key.to(v.dtype)), v, input_precision=PRECISION)
    _store_state(added_ptr, added, pair * chunks + n, c, SIZE)
    tl.store(kept_ptr + pair * chunks + n, kept)


@triton.jit
def _store_state(state_ptr, state, index, c, SIZE: tl.constexpr):
    there = (c[:, None] < SIZE) & (c[None, :] < SIZE)
    place = state_ptr + index * (SIZE * SIZE) + c[:, None] * SIZE + c[None, :]
    tl.store(place, state.to(state_ptr.dtype.element_ty), mask=there)


@triton.jit
def _load_state(state_ptr, index, c, SIZE: tl.constexpr):
    there = (c[:, None] < SIZE) & (c[None, :] < SIZE)
    return tl.load(state_ptr + index * (SIZE * SIZE) + c[:, None] * SIZE + c[None, :], mask=there, other=0.0)


@triton.jit
def states_kernel(
    added_ptr, kept_ptr, before_ptr, last_ptr, chunks, REVERSE: tl.constexpr, VALUES: tl.constexpr, BV: tl.constexpr
):  # fmt: skip
    """The state before each chunk from what chunks add, and the last; reversed, the gradient of that after each."""
    pair = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BV + tl.arange(0, BV)
    state = tl.zeros((BV,), tl.float32)
    for step in range(chunks):
        n = pair * chunks + (chunks - 1 - step if REVERSE else step)
        tl.store(before_ptr + n * VALUES + i, state.to(before_ptr.dtype.element_ty), mask=i < VALUES)
        added = tl.load(added_ptr + n * VALUES + i, mask=i < VALUES, other=0.0)
        state = tl.load(kept_ptr + n) * state + added
    tl.store(last_ptr + pair * VALUES + i, state, mask=i < VALUES)


@triton.jit
def output_kernel(
    q_ptr, k_ptr, v_ptr, taps_ptr, decay_ptr, position_ptr, before_ptr, out_ptr, tokens, chunks, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """o (P, T, C): what tokens take from their own chunk and from the state before it."""
    n, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, c = n * L + tl.arange(0, L), tl.arange(0, BC)
    base, place = pair * tokens * SIZE, pair // heads * tokens
    position, first, passed, _ = _places(position_ptr + place, decay_ptr + pair * tokens, row, tokens)
    reach, _, _ = _borders(passed, first, row, tokens, L)
    taps = taps_ptr + pair % heads * SIZE * TAPS
    v = _load(v_ptr + base, row, c, tokens, SIZE)
    key = _silu(_diffused(k_ptr + base, taps, position, row, c, tokens, SIZE, TAPS)).to(v.dtype)
    q = (_silu(_load(q_ptr + base, row, c, tokens, SIZE).to(tl.float32)) * root).to(v.dtype)
    score = tl.dot(q, tl.trans(key), input_precision=PRECISION) * _weights(passed, first, row)
    before = _load_state(before_ptr, pair * chunks + n, c, SIZE).to(v.dtype)
    out = tl.dot(q, before, input_precision=PRECISION) * reach[:, None]
    out = tl.dot(score.to(v.dtype), v, out, input_precision=PRECISION)
    _store(out_ptr + base, out, row, c, tokens, SIZE)


@triton.jit
def asked_kernel(
    q_ptr, grad_ptr, decay_ptr, position_ptr, asked_ptr, tokens, chunks, heads, root,
    SIZE: tl.constexpr, PRECISION: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """What each chunk asks of the state before it: the part of that state's gradient, (P, N, C, C)."""
    n, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, c = n * L + tl.arange(0, L), tl.arange(0, BC)
    base, place = pair * tokens * SIZE, pair // heads * tokens
    _, first, passed, _ = _places(position_ptr + place, decay_ptr + pair * tokens, row, tokens)
    reach, _, _ = _borders(passed, first, row, tokens, L)
    grad = _load(grad_ptr + base, row, c, tokens, SIZE)
    q = _silu(_load(q_ptr + base, row, c, tokens, SIZE).to(tl.float32)) * (root * reach)[:, None]
    asked = tl.dot(tl.trans(q.to(grad.dtype)), grad, input_precision=PRECISION)
    _store_state(asked_ptr, asked, pair * chunks + n, c, SIZE)


@triton.jit
def key_gradient_kernel(
    q_ptr, k_ptr, v_ptr, taps_ptr, decay_ptr, position_ptr, after_ptr, grad_ptr,
    grad_diffused_ptr, grad_v_ptr, spent_ptr, tokens, chunks, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of the diffused keys and of v; for the decays' the product of f(k~) and its gradient, (P, T)."""
    n, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, c = n * L + tl.arange(0, L), tl.arange(0, BC)
    base, place, index = pair * tokens * SIZE, pair // heads * tokens, pair * chunks + n
    position, first, passed, _ = _places(position_ptr + place, decay_ptr + pair * tokens, row, tokens)
    _, left, _ = _borders(passed, first, row, tokens, L)
    seen_by = tl.trans(_weights(passed, first, row))
    v, grad = _load(v_ptr + base, row, c, tokens, SIZE), _load(grad_ptr + base, row, c, tokens, SIZE)
    q = (_silu(_load(q_ptr + base, row, c, tokens, SIZE).to(tl.float32)) * root).to(v.dtype)
    after = _load_state(after_ptr, index, c, SIZE).to(v.dtype)
    taps = taps_ptr + pair % heads * SIZE * TAPS
    diffused = _diffused(k_ptr + base, taps, position, row, c, tokens, SIZE, TAPS)
    key = _silu(diffused)
    narrow_key = key.to(v.dtype)
    # (s, t): what t takes of s.
    taken = (tl.dot(narrow_key, tl.trans(q), input_precision=PRECISION) * seen_by).to(v.dtype)
    grad_v = tl.dot(narrow_key, after, input_precision=PRECISION) * left[:, None]
    grad_v = tl.dot(taken, grad, grad_v, input_precision=PRECISION)
    _store(grad_v_ptr + base, grad_v, row, c, tokens, SIZE)
    pull = (tl.dot(v, tl.trans(grad), input_precision=PRECISION) * seen_by).to(v.dtype)
    of_state = tl.dot(v, tl.trans(after), input_precision=PRECISION) * left[:, None]
    grad_key = tl.dot(pull, q, of_state, input_precision=PRECISION)
    _store(grad_diffused_ptr + base, grad_key * _silu_slope(diffused), row, c, tokens, SIZE)
    tl.store(spent_ptr + pair * tokens + row, tl.sum(grad_key * key, 1), mask=row < tokens)


@triton.jit
def query_gradient_kernel(
    q_ptr, k_ptr, v_ptr, taps_ptr, decay_ptr, position_ptr, before_ptr, grad_ptr,
    grad_q_ptr, gained_ptr, tokens, chunks, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient of q; for the decays' the product of f(q) and its gradient, (P, T)."""
    n, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, c = n * L + tl.arange(0, L), tl.arange(0, BC)
    base, place, index = pair * tokens * SIZE, pair // heads * tokens, pair * chunks + n
    position, first, passed, _ = _places(position_ptr + place, decay_ptr + pair * tokens, row, tokens)
    reach, _, _ = _borders(passed, first, row, tokens, L)
    v, grad = _load(v_ptr + base, row, c, tokens, SIZE), _load(grad_ptr + base, row, c, tokens, SIZE)
    before = _load_state(before_ptr, index, c, SIZE).to(v.dtype)
    taps = taps_ptr + pair % heads * SIZE * TAPS
    key = _silu(_diffused(k_ptr + base, taps, position, row, c, tokens, SIZE, TAPS)).to(v.dtype)
    pull = tl.dot(grad, tl.trans(v), input_precision=PRECISION) * _weights(passed, first, row)
    grad_q = tl.dot(grad, tl.trans(before), input_precision=PRECISION) * reach[:, None]
    grad_q = tl.dot(pull.to(v.dtype), key, grad_q, input_precision=PRECISION) * root
    q = _load(q_ptr + base, row, c, tokens, SIZE).to(tl.float32)
    _store(grad_q_ptr + base, grad_q * _silu_slope(q), row, c, tokens, SIZE)
    tl.store(gained_ptr + pair * tokens + row, tl.sum(grad_q * _silu(q), 1), mask=row < tokens)


@triton.jit
def decay_gradient_kernel(
    position_ptr, before_ptr, after_ptr, gained_ptr, spent_ptr, grad_decay_ptr, tokens, chunks, heads,
    SIZE: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The log decays' gradients: each sum of decays enters by its last token and leaves by its first.

    The state after the chunk, with the worth that later chunks give it, has passed all of the chunk's decays.
    """
    n, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, index = n * L + tl.arange(0, L), pair * chunks + n
    there = row < tokens
    position = tl.load(position_ptr + pair // heads * tokens + row, mask=there, other=0)
    gained = tl.load(gained_ptr + pair * tokens + row, mask=there, other=0.0)
    of_passed = gained - tl.load(spent_ptr + pair * tokens + row, mask=there, other=0.0)
    whole = 0.0
    if n + 1 < chunks:
        i = tl.arange(0, BC * BC)
        state = tl.load(before_ptr + (index + 1) * (SIZE * SIZE) + i, mask=i < SIZE * SIZE, other=0.0).to(tl.float32)
        worth = tl.load(after_ptr + index * (SIZE * SIZE) + i, mask=i < SIZE * SIZE, other=0.0).to(tl.float32)
        whole = tl.sum(state * worth, 0)
    grad_decay = tl.sum(of_passed, 0) - tl.cumsum(of_passed, 0) + of_passed + whole
    tl.store(grad_decay_ptr + pair * tokens + row, tl.where(position > 0, grad_decay, 0.0), mask=there)


@triton.jit
def diffusion_gradient_kernel(
    grad_diffused_ptr, k_ptr, taps_ptr, position_ptr, grad_k_ptr, grad_taps_ptr, tokens, chunks, heads,
    SIZE: tl.constexpr, TAPS: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dk_t = sum over j of a_j dk~_(t+j) within the document; the taps' gradients of each chunk, (P, N, C, W)."""
    n, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, c = n * L + tl.arange(0, L), tl.arange(0, BC)
    base, place = pair * tokens * SIZE, pair // heads * tokens
    taps = taps_ptr + pair % heads * SIZE * TAPS
    out = grad_taps_ptr + (pair * chunks + n) * SIZE * TAPS
    position = tl.load(position_ptr + place + row, mask=row < tokens, other=0)
    own = _load(grad_diffused_ptr + base, row, c, tokens, SIZE).to(tl.float32)
    grad_k = tl.zeros((L, BC), tl.float32)
    for j in tl.static_range(TAPS):
        tap = tl.load(taps + c * TAPS + j, mask=c < SIZE, other=0.0).to(tl.float32)
        later = tl.load(position_ptr + place + row + j, mask=row + j < tokens, other=-1)
        grad = _load(grad_diffused_ptr + base, row + j, c, tokens, SIZE).to(tl.float32)
        grad_k += tl.where((later >= j)[:, None], grad, 0.0) * tap[None, :]
        earlier = _load(k_ptr + base, row - j, c, tokens, SIZE).to(tl.float32)
        of_tap = tl.sum(tl.where((position >= j)[:, None], earlier, 0.0) * own, 0)
        tl.store(out + c * TAPS + j, of_tap, mask=c < SIZE)
    _store(grad_k_ptr + base, grad_k, row, c, tokens, SIZE)


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
    key = tl.where(c < SIZE, _silu(key), 0.0)
    there = (c[:, None] < SIZE) & (v[None, :] < SIZE)
    place = pair.to(tl.int64) * SIZE * SIZE + c[:, None] * SIZE + v[None, :]
    before = tl.load(before_ptr + place, mask=there & goes_on, other=0.0).to(tl.float32)
    value = tl.load(v_ptr + pair * SIZE + v, mask=v < SIZE, other=0.0).to(tl.float32)
    after = before * tl.exp(tl.load(decay_ptr + pair).to(tl.float32)) + key[:, None] * value[None, :]
    tl.store(after_ptr + place, after.to(after_ptr.dtype.element_ty), mask=there)
    q = _silu(tl.load(q_ptr + pair * SIZE + c, mask=c < SIZE, other=0.0).to(tl.float32))
    out = tl.sum(q[:, None] * after, 0) * root
    tl.store(out_ptr + pair * SIZE + v, out.to(out_ptr.dtype.element_ty), mask=v < SIZE)
