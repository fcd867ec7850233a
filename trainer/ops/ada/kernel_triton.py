"""Triton kernels of Arnold diffusion attention: a program walks the chunks of a segment with the state in registers.

launch.py launches them; nothing is checked here. README.md has the mathematics. Sums, decays and states are in float32;
sums of log decays are to base 2. States are turned, (C of values, C of keys), so that products read all inputs as they
lie in memory. Letters: P pairs of a row and a head, T tokens, L tokens of a chunk, N chunks, G
segments of `walk` chunks, C head size, W taps; f is silu. EVEN: T is whole chunks and C a power of two, so that nothing
is masked.
"""

import triton
import triton.language as tl


@triton.jit
def _twist(x, CODE: tl.constexpr, PRECISION: tl.constexpr):
    """tanh(x / 2), of which the logistic function is made; for narrow products by one instruction, right to 5e-4."""
    if PRECISION == "ieee":
        return 2.0 / (1.0 + tl.exp2(x * -1.4426950408889634)) - 1.0
    return tl.inline_asm_elementwise(CODE, "=f,f", [x * 0.5], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _silu(x, PRECISION: tl.constexpr):
    half = x * 0.5
    return half * _twist(x, "tanh.approx.f32 $0, $1;", PRECISION) + half


@triton.jit
def _silu_and_slope(x, PRECISION: tl.constexpr):
    # Words of its own, for the compiler would rather spill what _silu has left than compute it again.
    twist, half = _twist(x, "/* again */ tanh.approx.f32 $0, $1;", PRECISION), x * 0.5
    value = half * twist + half
    return value, value * (0.5 - 0.5 * twist) + (0.5 + 0.5 * twist)


@triton.jit
def _power(x, PRECISION: tl.constexpr):
    """2 to the x; for narrow products without what is below 1e-38."""
    if PRECISION == "ieee":
        return tl.exp2(x)
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


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
def _reach(passed, position, row, begin, scale):
    """2^scale of how much of the state before the chunk each token sees."""
    return tl.where(row - position < begin, tl.exp2(passed + scale), 0.0)


@triton.jit
def _weights(passed, position, row, scale, PRECISION: tl.constexpr):
    """(L of t, L of s): 2^scale of what a token t keeps of the contribution of s; zero where it does not see it."""
    # As an unsigned number the age of a later token is larger than any place.
    seen = (row[:, None] - row[None, :]).to(tl.uint32) <= position.to(tl.uint32)[:, None]
    return _power(tl.where(seen, (passed + scale)[:, None] - passed[None, :], float("-inf")), PRECISION)


@triton.jit
def _weights_turned(passed, position, row, scale, PRECISION: tl.constexpr):
    """The same, (L of s, L of t)."""
    seen = (row[None, :] - row[:, None]).to(tl.uint32) <= position.to(tl.uint32)[None, :]
    return _power(tl.where(seen, (passed + scale)[None, :] - passed[:, None], float("-inf")), PRECISION)


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
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = _end(position_ptr, passed_ptr, n * L, tokens, L)
        v = _load(v_ptr, row, c, tokens, SIZE, EVEN)
        key = _silu(_diffused(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN), PRECISION)
        key *= _left(passed, row, total, last_first)[:, None]
        state = tl.dot(tl.trans(v), key.to(v.dtype), state * kept, input_precision=PRECISION)
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
        state = _load_state(start_ptr, pair * tl.num_programs(0) + segment, c, SIZE).to(tl.float32)
    for n in range(segment * walk, tl.minimum(segment * walk + walk, chunks)):
        row = n * L + tl.arange(0, L)
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = _end(position_ptr, passed_ptr, n * L, tokens, L)
        v = _load(v_ptr, row, c, tokens, SIZE, EVEN)
        key = _silu(_diffused(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN), PRECISION)
        q = _silu(_load(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION).to(v.dtype)
        before = state.to(v.dtype)
        _store_state(before_ptr, before, pair * chunks + n, c, SIZE)
        left_key = (key * _left(passed, row, total, last_first)[:, None]).to(v.dtype)
        score = tl.dot(q, tl.trans(key.to(v.dtype)), input_precision=PRECISION)
        score = (score * _weights(passed, position, row, scale, PRECISION)).to(v.dtype)
        out = (
            tl.dot(q, tl.trans(before), input_precision=PRECISION)
            * _reach(passed, position, row, n * L, scale)[:, None]
        )
        out = tl.dot(score, v, out, input_precision=PRECISION)
        _store(out_ptr, out, row, c, tokens, SIZE, EVEN)
        state = tl.dot(tl.trans(v), left_key, state * kept, input_precision=PRECISION)
    if segment == tl.num_programs(0) - 1:
        _store_state(end_ptr, tl.trans(state), pair, c, SIZE)


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
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        reach = _reach(passed, position, row, n * L, scale)
        v, grad = _load(v_ptr, row, c, tokens, SIZE, EVEN), _load(grad_ptr, row, c, tokens, SIZE, EVEN)
        # As the keys' gradients will read it: for the decays both must round alike, or what should cancel does not.
        diffused = _diffused(k_ptr, taps_ptr, position, row, c, tokens, SIZE, TAPS, EVEN).to(v.dtype)
        _store(diffused_ptr, diffused, row, c, tokens, SIZE, EVEN)
        before = _load_state(before_ptr, pair * chunks + n, c, SIZE)
        key = _silu(diffused.to(tl.float32), PRECISION).to(v.dtype)
        pull = tl.dot(grad, tl.trans(v), input_precision=PRECISION)
        pull = (pull * _weights(passed, position, row, scale, PRECISION)).to(v.dtype)
        grad_q = tl.dot(grad, before, input_precision=PRECISION) * reach[:, None]
        grad_q = tl.dot(pull, key, grad_q, input_precision=PRECISION)
        q, slope = _silu_and_slope(_load(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION)
        tl.store(gained_ptr + row, tl.sum(grad_q * q.to(v.dtype).to(tl.float32), 1), mask=row < tokens)
        _store(grad_q_ptr, grad_q * slope, row, c, tokens, SIZE, EVEN)
        if not WHOLE:
            _, _, kept = _end(position_ptr, passed_ptr, n * L, tokens, L)
            asking = (q * reach[:, None]).to(v.dtype)
            asked = tl.dot(tl.trans(grad), asking, asked * kept, input_precision=PRECISION)
            whole *= kept
    if not WHOLE:
        index = pair * tl.num_programs(0) + segment
        _store_state(asked_ptr, asked, index, c, SIZE)
        tl.store(kept_ptr + index, whole)


@triton.jit
def key_gradient_kernel(
    q_ptr, v_ptr, passed_ptr, position_ptr, before_ptr, after_ptr, grad_ptr,
    grad_k_ptr, grad_v_ptr, head_ptr, spent_ptr, worth_ptr, tokens, chunks, walk, heads, root,
    SIZE: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr, EVEN: tl.constexpr, WHOLE: tl.constexpr,
    L: tl.constexpr, BC: tl.constexpr,
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
        after = _load_state(after_ptr, pair * tl.num_programs(0) + segment, c, SIZE).to(tl.float32)
    end = tl.minimum(segment * walk + walk, chunks)
    for step in range(end - segment * walk):
        n = end - 1 - step
        row = n * L + tl.arange(0, L)
        position, passed = _places(position_ptr, passed_ptr, row, tokens, EVEN)
        total, last_first, kept = _end(position_ptr, passed_ptr, n * L, tokens, L)
        left = _left(passed, row, total, last_first)
        v, grad = _load(v_ptr, row, c, tokens, SIZE, EVEN), _load(grad_ptr, row, c, tokens, SIZE, EVEN)
        key = _silu(_load(grad_k_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION).to(v.dtype)
        q = _silu(_load(q_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32), PRECISION)
        asking = (q * _reach(passed, position, row, n * L, scale)[:, None]).to(v.dtype)
        q = q.to(v.dtype)
        narrow_after = after.to(v.dtype)
        # (s, t): the product of a key and a query, and its gradient.
        weights = _weights_turned(passed, position, row, scale, PRECISION)
        score = (tl.dot(key, tl.trans(q), input_precision=PRECISION) * weights).to(v.dtype)
        grad_v = tl.dot(key, tl.trans(narrow_after), input_precision=PRECISION) * left[:, None]
        grad_v = tl.dot(score, grad, grad_v, input_precision=PRECISION)
        _store(grad_v_ptr, grad_v, row, c, tokens, SIZE, EVEN)
        pull = (tl.dot(v, tl.trans(grad), input_precision=PRECISION) * weights).to(v.dtype)
        grad_key = tl.dot(v, narrow_after, input_precision=PRECISION) * left[:, None]
        grad_key = tl.dot(pull, q, grad_key, input_precision=PRECISION)
        # Read again, for registers are dearer.
        diffused = _load(grad_k_ptr, row, c, tokens, SIZE, EVEN)
        value, slope = _silu_and_slope(diffused.to(tl.float32), PRECISION)
        tl.store(spent_ptr + row, tl.sum(grad_key * value.to(v.dtype).to(tl.float32), 1), mask=row < tokens)
        grad_key *= slope
        _store(grad_k_ptr, grad_key, row, c, tokens, SIZE, EVEN)
        _store_head(head_ptr + (pair * chunks + n) * (SIZE * (TAPS - 1)), grad_key, row - n * L, c, SIZE, TAPS)
        after = tl.dot(tl.trans(grad), asking, after * kept, input_precision=PRECISION)
        before = _load_state(before_ptr, pair * chunks + n, c, SIZE).to(tl.float32)
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
        of_taps += (tl.zeros((BR, BC), tl.float32),)
    for begin in range(segment * walk * L, end, BR):
        row = begin + tl.arange(0, BR)
        position = tl.minimum(tl.load(position_ptr + row, mask=row < tokens, other=0).to(tl.int32), row)
        own = _load(grad_k_ptr, row, c, end, SIZE, EVEN).to(tl.float32)
        grad_k = own * _tap(taps_ptr, 0, c, SIZE)[None, :]
        products = (of_taps[0] + own * _load(k_ptr, row, c, end, SIZE, EVEN).to(tl.float32),)
        for j in tl.static_range(1, TAPS):
            goes_on = tl.load(position_ptr + row + j, mask=row + j < tokens, other=0) >= j
            grad = _load_later(grad_k_ptr, head_ptr, row + j, goes_on, c, end, SIZE)
            grad_k += grad * _tap(taps_ptr, j, c, SIZE)[None, :]
            there = (position >= j)[:, None] & (c[None, :] < SIZE)
            earlier = tl.load(k_ptr + (row - j)[:, None] * SIZE + c[None, :], mask=there, other=0.0).to(tl.float32)
            products += (of_taps[j] + earlier * own,)
        of_taps = products
        # All have read before any writes.
        tl.debug_barrier()
        _store(grad_k_ptr, grad_k, row, c, end, SIZE, EVEN)
    for j in tl.static_range(TAPS):
        tl.store(grad_taps_ptr + j * SIZE + c, tl.sum(of_taps[j], 0), mask=c < SIZE)


@triton.jit
def _load_later(x_ptr, head_ptr, row, is_there, c, end, SIZE: tl.constexpr):
    """Rows of the segment, those after its end from `head`."""
    place = tl.where(row < end, x_ptr + row * SIZE, head_ptr + (row - end) * SIZE)
    there = is_there[:, None] & (c[None, :] < SIZE)
    return tl.load(place[:, None] + c[None, :], mask=there, other=0.0).to(tl.float32)


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
