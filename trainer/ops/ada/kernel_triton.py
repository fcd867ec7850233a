"""Triton kernels of Arnold diffusion attention: a program walks the chunks of a segment with the state in registers.

launch.py launches them; nothing is checked here. README.md has the mathematics. Sums, decays and states are in float32;
sums of log decays are to base 2. Letters: P pairs of a row and a head, T tokens, L tokens of a chunk, N chunks, G
segments of `walk` chunks, C head size, W taps; f is silu. EVEN: T is whole chunks and C a power of two, so that nothing
is masked.
"""

import triton
import triton.language as tl


@triton.jit
def _gate(x, PRECISION: tl.constexpr):
    """The logistic function; for narrow products by one instruction, right to 5e-4.

    Not pure, for the compiler would rather spill what it has than compute this again.
    """
    if PRECISION == "ieee":
        return 1.0 / (1.0 + tl.exp2(x * -1.4426950408889634))
    half = tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [x * 0.5], dtype=tl.float32, is_pure=False, pack=1
    )
    return 0.5 + 0.5 * half


@triton.jit
def _silu(x, PRECISION: tl.constexpr):
    return x * _gate(x, PRECISION)


@triton.jit
def _silu_and_slope(x, PRECISION: tl.constexpr):
    gate = _gate(x, PRECISION)
    value = x * gate
    return value, gate + value * (1.0 - gate)


@triton.jit
def _power(x, PRECISION: tl.constexpr):
    """2 to the x; for narrow products without what is below 1e-38."""
    if PRECISION == "ieee":
        return tl.exp2(x)
    return tl.inline_asm_elementwise(
        "ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@triton.jit
def _load(x_ptr, row, c, tokens, SIZE: tl.constexpr, EVEN: tl.constexpr):
    """A tile (L, C) of a (T, C) matrix, zero after its end."""
    place = x_ptr + row[:, None] * SIZE + c[None, :]
    if EVEN:
        return tl.load(place)
    return tl.load(place, mask=(row[:, None] < tokens) & (c[None, :] < SIZE), other=0.0)


@triton.jit
def _store(x_ptr, value, row, c, tokens, SIZE: tl.constexpr, EVEN: tl.constexpr):
    place = x_ptr + row[:, None] * SIZE + c[None, :]
    if EVEN:
        tl.store(place, value.to(x_ptr.dtype.element_ty))
    else:
        tl.store(place, value.to(x_ptr.dtype.element_ty), mask=(row[:, None] < tokens) & (c[None, :] < SIZE))


@triton.jit
def _load_state(state_ptr, index, c, SIZE: tl.constexpr):
    place = state_ptr + index * (SIZE * SIZE) + c[:, None] * SIZE + c[None, :]
    return tl.load(place, mask=(c[:, None] < SIZE) & (c[None, :] < SIZE), other=0.0)


@triton.jit
def _store_state(state_ptr, state, index, c, SIZE: tl.constexpr):
    there = (c[:, None] < SIZE) & (c[None, :] < SIZE)
    place = state_ptr + index * (SIZE * SIZE) + c[:, None] * SIZE + c[None, :]
    tl.store(place, state.to(state_ptr.dtype.element_ty), mask=there)


@triton.jit
def _diffused(k_ptr, taps_ptr, position, row, c, tokens, SIZE: tl.constexpr, TAPS: tl.constexpr, EVEN: tl.constexpr):
    """k~ (L, C) in float32: the sum over j < W of a_j k_(t-j) within the document. Taps (W, C) of the head."""
    # A row may begin in the middle of a document: what came before is not there.
    before = tl.minimum(position, row)
    total = _load(k_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32) * _tap(taps_ptr, 0, c, SIZE)[None, :]
    for j in tl.static_range(1, TAPS):
        earlier = _load(k_ptr, tl.maximum(row - j, 0), c, tokens, SIZE, EVEN).to(tl.float32)
        total += tl.where((before >= j)[:, None], earlier, 0.0) * _tap(taps_ptr, j, c, SIZE)[None, :]
    return total


@triton.jit
def _tap(taps_ptr, j, c, SIZE: tl.constexpr):
    return tl.load(taps_ptr + j * SIZE + c, mask=c < SIZE, other=0.0).to(tl.float32)


@triton.jit
def _places(position_ptr, passed_ptr, row, tokens, EVEN: tl.constexpr):
    """Of each token its place and the log decay summed from the chunk's start. Padding sees only itself."""
    if EVEN:
        return tl.load(position_ptr + row).to(tl.int32), tl.load(passed_ptr + row).to(tl.float32)
    there = row < tokens
    position = tl.load(position_ptr + row, mask=there, other=0).to(tl.int32)
    return position, tl.load(passed_ptr + row, mask=there, other=0.0).to(tl.float32)


@triton.jit
def _end(position_ptr, passed_ptr, begin, tokens, L: tl.constexpr):
    """The chunk's sum of log decays, the first row of its last document, and what it keeps of the state before it."""
    final = tl.minimum(begin + L, tokens) - 1
    total = tl.load(passed_ptr + final).to(tl.float32)
    last_first = final - tl.load(position_ptr + final).to(tl.int32)
    return total, last_first, tl.where(last_first < begin, tl.exp2(total), 0.0)


@triton.jit
def _left(passed, row, total, last_first):
    """How much of each token's contribution the state after the chunk holds."""
    return tl.where(row >= last_first, tl.exp2(total - passed), 0.0)


@triton.jit
def _reach(passed, position, row, begin):
    """How much of the state before the chunk each token sees."""
    return tl.where(row - position < begin, tl.exp2(passed), 0.0)


@triton.jit
def _weights(passed, position, row, PRECISION: tl.constexpr):
    """(L, L): what a token keeps of another's contribution; zero where it does not see it."""
    # As an unsigned number the age of a later token is larger than any place.
    age = (row[:, None] - row[None, :]).to(tl.uint32)
    seen = age <= position.to(tl.uint32)[:, None]
    return _power(tl.where(seen, passed[:, None] - passed[None, :], float("-inf")), PRECISION)


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
    """What each segment adds to the state, (P, G, C, C), and what it leaves of the state before, (P, G)."""
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    k_ptr, v_ptr = k_ptr + pair * tokens * SIZE, v_ptr + pair * tokens * SIZE
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    taps_ptr += pair % heads * SIZE * TAPS
    c = tl.arange(0, BC)
    state, whole = tl.zeros((BC, BC), tl.float32), 1.0
    for n in range(segment * walk, tl.minimum(segment * walk + walk, chunks)):
        row = n * L + tl.arange(0, L)
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = _end(position_ptr, passed_ptr, n * L, tokens, L)
        v = _load(v_ptr, row, c, tokens, SIZE, EVEN)
        key = _silu(_diffused(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN), PRECISION)
        key *= _left(passed, row, total, last_first)[:, None]
        state = tl.dot(tl.trans(key.to(v.dtype)), v, state * kept, input_precision=PRECISION)
        whole *= kept
    index = pair * tl.num_programs(0) + segment
    _store_state(added_ptr, state, index, c, SIZE)
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
    """o (P, T, C); the state before each chunk (P, N, C, C) as products read it, and the last (P, C, C).

    start: the state before each segment, (P, G, C, C); not read where a segment is a WHOLE row.
    """
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    base = pair * tokens * SIZE
    q_ptr, k_ptr, v_ptr, out_ptr = q_ptr + base, k_ptr + base, v_ptr + base, out_ptr + base
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    taps_ptr += pair % heads * SIZE * TAPS
    c = tl.arange(0, BC)
    state = tl.zeros((BC, BC), tl.float32)
    if not WHOLE:
        state = _load_state(start_ptr, pair * tl.num_programs(0) + segment, c, SIZE).to(tl.float32)
    for n in range(segment * walk, tl.minimum(segment * walk + walk, chunks)):
        row = n * L + tl.arange(0, L)
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = _end(position_ptr, passed_ptr, n * L, tokens, L)
        v = _load(v_ptr, row, c, tokens, SIZE, EVEN)
        key = _silu(_diffused(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN), PRECISION)
        q = (_silu(_load(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION) * root).to(v.dtype)
        score = tl.dot(q, tl.trans(key.to(v.dtype)), input_precision=PRECISION) * _weights(passed, position, row, PRECISION)
        before = state.to(v.dtype)
        _store_state(before_ptr, before, pair * chunks + n, c, SIZE)
        out = tl.dot(q, before, input_precision=PRECISION) * _reach(passed, position, row, n * L)[:, None]
        out = tl.dot(score.to(v.dtype), v, out, input_precision=PRECISION)
        _store(out_ptr, out, row, c, tokens, SIZE, EVEN)
        key *= _left(passed, row, total, last_first)[:, None]
        state = tl.dot(tl.trans(key.to(v.dtype)), v, state * kept, input_precision=PRECISION)
    if segment == tl.num_programs(0) - 1:
        _store_state(end_ptr, state, pair, c, SIZE)


@triton.jit
def asked_kernel(
    q_ptr, grad_ptr, passed_ptr, position_ptr, asked_ptr, kept_ptr, tokens, chunks, walk, heads, root,
    SIZE: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """What each segment asks of the state before it: the part of its gradient, (P, G, C, C); what it keeps, (P, G)."""
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    q_ptr, grad_ptr = q_ptr + pair * tokens * SIZE, grad_ptr + pair * tokens * SIZE
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    c = tl.arange(0, BC)
    asked, whole = tl.zeros((BC, BC), tl.float32), 1.0
    end = tl.minimum(segment * walk + walk, chunks)
    for step in range(end - segment * walk):
        begin = (end - 1 - step) * L
        row = begin + tl.arange(0, L)
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        _, _, kept = _end(position_ptr, passed_ptr, begin, tokens, L)
        grad = _load(grad_ptr, row, c, tokens, SIZE, EVEN)
        q = _silu(_load(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION)
        q *= (root * _reach(passed, position, row, begin))[:, None]
        asked = tl.dot(tl.trans(q.to(grad.dtype)), grad, asked * kept, input_precision=PRECISION)
        whole *= kept
    index = pair * tl.num_programs(0) + segment
    _store_state(asked_ptr, asked, index, c, SIZE)
    tl.store(kept_ptr + index, whole)


@triton.jit
def diffuse_kernel(
    k_ptr, taps_ptr, position_ptr, diffused_ptr, tokens, heads,
    SIZE: tl.constexpr, TAPS: tl.constexpr, EVEN: tl.constexpr, L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """k~ (P, T, C)."""
    pair = tl.program_id(1).to(tl.int64)
    row, c = tl.program_id(0) * L + tl.arange(0, L), tl.arange(0, BC)
    position = tl.load(position_ptr + pair // heads * tokens + row, mask=row < tokens, other=0).to(tl.int32)
    base, taps_ptr = pair * tokens * SIZE, taps_ptr + pair % heads * SIZE * TAPS
    diffused = _diffused(k_ptr + base, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN)
    _store(diffused_ptr + base, diffused, row, c, tokens, SIZE, EVEN)


@triton.jit
def gradient_kernel(
    q_ptr, v_ptr, passed_ptr, position_ptr, before_ptr, after_ptr, grad_ptr,
    grad_q_ptr, grad_k_ptr, grad_v_ptr, head_ptr, balance_ptr, worth_ptr, tokens, chunks, walk, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, WHOLE: tl.constexpr,
    L: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Gradients of q, of the diffused keys and of v, from the last chunk to the first.

    grad_k: the diffused keys, in whose place their gradients come. head: of the latter the first W - 1 rows of each
    chunk, (P, N, W - 1, C). For the decays: each token's balance (P, T) and the worth of the state before each chunk
    (P, N), README.md. after: the gradient of the state after each segment, (P, G, C, C); not read where a segment is a
    WHOLE row.
    """
    segment, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    base = pair * tokens * SIZE
    q_ptr, v_ptr, grad_ptr = q_ptr + base, v_ptr + base, grad_ptr + base
    grad_q_ptr, grad_k_ptr, grad_v_ptr = grad_q_ptr + base, grad_k_ptr + base, grad_v_ptr + base
    passed_ptr, position_ptr = passed_ptr + pair * tokens, position_ptr + pair // heads * tokens
    balance_ptr += pair * tokens
    c = tl.arange(0, BC)
    after = tl.zeros((BC, BC), tl.float32)
    if not WHOLE:
        after = _load_state(after_ptr, pair * tl.num_programs(0) + segment, c, SIZE).to(tl.float32)
    end = tl.minimum(segment * walk + walk, chunks)
    for step in range(end - segment * walk):
        n = end - 1 - step
        row = n * L + tl.arange(0, L)
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = _end(position_ptr, passed_ptr, n * L, tokens, L)
        reach, left = _reach(passed, position, row, n * L), _left(passed, row, total, last_first)
        v, grad = _load(v_ptr, row, c, tokens, SIZE, EVEN), _load(grad_ptr, row, c, tokens, SIZE, EVEN)
        raw_q = _load(q_ptr, row, c, tokens, SIZE, EVEN)
        diffused = _load(grad_k_ptr, row, c, tokens, SIZE, EVEN)
        before = _load_state(before_ptr, pair * chunks + n, c, SIZE)
        q = (_silu(raw_q.to(tl.float32), PRECISION) * root).to(v.dtype)
        key = _silu(diffused.to(tl.float32), PRECISION).to(v.dtype)

        # (t, s): the product of a query and a key, and its gradient.
        weights = _weights(passed, position, row, PRECISION)
        score = (tl.dot(q, tl.trans(key), input_precision=PRECISION) * weights).to(v.dtype)
        pull = (tl.dot(grad, tl.trans(v), input_precision=PRECISION) * weights).to(v.dtype)

        grad_q = tl.dot(grad, tl.trans(before), input_precision=PRECISION) * reach[:, None]
        grad_q = tl.dot(pull, key, grad_q, input_precision=PRECISION) * root
        value, slope = _silu_and_slope(raw_q.to(tl.float32), PRECISION)
        balance = tl.sum(grad_q * value, 1)
        _store(grad_q_ptr, grad_q * slope, row, c, tokens, SIZE, EVEN)

        narrow_after = after.to(v.dtype)
        grad_v = tl.dot(key, narrow_after, input_precision=PRECISION) * left[:, None]
        grad_v = tl.dot(tl.trans(score), grad, grad_v, input_precision=PRECISION)
        _store(grad_v_ptr, grad_v, row, c, tokens, SIZE, EVEN)

        grad_key = tl.dot(v, tl.trans(narrow_after), input_precision=PRECISION) * left[:, None]
        grad_key = tl.dot(tl.trans(pull), q, grad_key, input_precision=PRECISION)
        value, slope = _silu_and_slope(diffused.to(tl.float32), PRECISION)
        balance -= tl.sum(grad_key * value, 1)
        tl.store(balance_ptr + row, balance, mask=row < tokens)
        grad_key *= slope
        _store(grad_k_ptr, grad_key, row, c, tokens, SIZE, EVEN)
        _store_head(head_ptr + (pair * chunks + n) * (SIZE * (TAPS - 1)), grad_key, row - n * L, c, SIZE, TAPS)

        asking = (grad.to(tl.float32) * reach[:, None]).to(v.dtype)
        after = tl.dot(tl.trans(q), asking, after * kept, input_precision=PRECISION)
        tl.store(worth_ptr + pair * chunks + n, tl.sum(tl.sum(after * before.to(tl.float32), 1), 0))


@triton.jit
def _store_head(head_ptr, value, row, c, SIZE: tl.constexpr, TAPS: tl.constexpr):
    there = (row[:, None] < TAPS - 1) & (c[None, :] < SIZE)
    tl.store(head_ptr + row[:, None] * SIZE + c[None, :], value.to(head_ptr.dtype.element_ty), mask=there)


@triton.jit
def decay_gradient_kernel(
    position_ptr, balance_ptr, worth_ptr, grad_decay_ptr, tokens, chunks, heads, L: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """The log decays' gradients: each sum of decays enters by its last token and leaves by its first.

    The state after the chunk, with the worth that later chunks give it, has passed all of the chunk's decays.
    """
    pair = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    row = n[:, None] * L + tl.arange(0, L)[None, :]
    there = row < tokens
    position = tl.load(position_ptr + pair // heads * tokens + row, mask=there, other=0)
    balance = tl.load(balance_ptr + pair * tokens + row, mask=there, other=0.0).to(tl.float32)
    worth = tl.load(worth_ptr + pair * chunks + n + 1, mask=n + 1 < chunks, other=0.0).to(tl.float32)
    later = tl.sum(balance, 1)[:, None] - tl.cumsum(balance, 1) + balance
    grad_decay = tl.where(position > 0, later + worth[:, None], 0.0)
    tl.store(grad_decay_ptr + pair * tokens + row, grad_decay, mask=there)


@triton.jit
def diffusion_gradient_kernel(
    grad_k_ptr, k_ptr, taps_ptr, position_ptr, head_ptr, grad_taps_ptr, tokens, chunks, walk, heads,
    SIZE: tl.constexpr, TAPS: tl.constexpr, EVEN: tl.constexpr, L: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """dk_t = sum over j of a_j dk~_(t+j) within the document, in the place of dk~; each segment's of the taps.

    BR rows at a time, upwards, so that those below are still dk~; of the next segment's, which may be gone, `head` has
    the first. Taps' gradients are (P, G, W, C).
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
        of_taps = of_taps + (tl.zeros((BR, BC), tl.float32),)
    for begin in range(segment * walk * L, end, BR):
        row = begin + tl.arange(0, BR)
        position = tl.minimum(tl.load(position_ptr + row, mask=row < tokens, other=0).to(tl.int32), row)
        own = _load(grad_k_ptr, row, c, end, SIZE, EVEN).to(tl.float32)
        grad_k = own * _tap(taps_ptr, 0, c, SIZE)[None, :]
        products = (of_taps[0] + own * _load(k_ptr, row, c, end, SIZE, EVEN).to(tl.float32),)
        for j in tl.static_range(1, TAPS):
            grad = _load_later(grad_k_ptr, head_ptr, row + j, c, end, tokens, SIZE)
            goes_on = tl.load(position_ptr + row + j, mask=row + j < tokens, other=0) >= j
            grad_k += tl.where(goes_on[:, None], grad, 0.0) * _tap(taps_ptr, j, c, SIZE)[None, :]
            earlier = _load(k_ptr, tl.maximum(row - j, 0), c, end, SIZE, EVEN).to(tl.float32)
            products = products + (of_taps[j] + tl.where((position >= j)[:, None], earlier, 0.0) * own,)
        of_taps = products
        # All have read before any writes.
        tl.debug_barrier()
        _store(grad_k_ptr, grad_k, row, c, end, SIZE, EVEN)
    for j in tl.static_range(TAPS):
        tl.store(grad_taps_ptr + j * SIZE + c, tl.sum(of_taps[j], 0), mask=c < SIZE)


@triton.jit
def _load_later(x_ptr, head_ptr, row, c, end, tokens, SIZE: tl.constexpr):
    """Rows of the segment, those after its end from `head`; zero after the last token."""
    inside = (row < end)[:, None] & (c[None, :] < SIZE)
    after = ((row >= end) & (row < tokens))[:, None] & (c[None, :] < SIZE)
    value = tl.load(x_ptr + row[:, None] * SIZE + c[None, :], mask=inside, other=0.0).to(tl.float32)
    return value + tl.load(head_ptr + (row - end)[:, None] * SIZE + c[None, :], mask=after, other=0.0).to(tl.float32)


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
    key = tl.where(c < SIZE, _silu(key, "ieee"), 0.0)
    there = (c[:, None] < SIZE) & (v[None, :] < SIZE)
    place = pair.to(tl.int64) * SIZE * SIZE + c[:, None] * SIZE + v[None, :]
    before = tl.load(before_ptr + place, mask=there & goes_on, other=0.0).to(tl.float32)
    value = tl.load(v_ptr + pair * SIZE + v, mask=v < SIZE, other=0.0).to(tl.float32)
    after = before * tl.exp(tl.load(decay_ptr + pair).to(tl.float32)) + key[:, None] * value[None, :]
    tl.store(after_ptr + place, after.to(after_ptr.dtype.element_ty), mask=there)
    q = _silu(tl.load(q_ptr + pair * SIZE + c, mask=c < SIZE, other=0.0).to(tl.float32), "ieee")
    out = tl.sum(q[:, None] * after, 0) * root
    tl.store(out_ptr + pair * SIZE + v, out.to(out_ptr.dtype.element_ty), mask=v < SIZE)
