"""What diffusion attention's Triton kernels do with one chunk: its tiles, decays and diffused keys.

Sums, decays and states are in float32; sums of log decays are to base 2. EVEN: T is whole chunks and C a power of two,
so that nothing is masked. Letters: T tokens, L tokens of a chunk, C head size, W taps; f is silu.
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
def silu(x, PRECISION: tl.constexpr):
    half = x * 0.5
    return half * _twist(x, "tanh.approx.f32 $0, $1;", PRECISION) + half


@triton.jit
def silu_and_slope(x, PRECISION: tl.constexpr):
    # Words of its own, for the compiler would rather spill what _silu has left than compute it again.
    twist, half = _twist(x, "/* again */ tanh.approx.f32 $0, $1;", PRECISION), x * 0.5
    value = half * twist + half
    return value, value * (0.5 - 0.5 * twist) + (0.5 + 0.5 * twist)


@triton.jit
def power(x, PRECISION: tl.constexpr):
    """2 to the x; for narrow products without what is below 1e-38."""
    if PRECISION == "ieee":
        return tl.exp2(x)
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def wait_for_all(PRECISION: tl.constexpr):
    """No thread of the program goes on before all are here. Triton loads nothing ahead around its own barrier."""
    if PRECISION == "ieee":
        tl.debug_barrier()
    else:
        tl.inline_asm_elementwise("bar.sync 0; mov.b32 $0, $1;", "=r,r", [0], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def load_tile(x_ptr, row, c, tokens, SIZE: tl.constexpr, EVEN: tl.constexpr):
    """A tile (L, C) of a (T, C) matrix, zero after its end."""
    place = x_ptr + row[:, None] * SIZE + c[None, :]
    if EVEN:
        return tl.load(place)
    return tl.load(place, mask=(row[:, None] < tokens) & (c[None, :] < SIZE), other=0.0)


@triton.jit
def store_tile(x_ptr, value, row, c, tokens, SIZE: tl.constexpr, EVEN: tl.constexpr):
    place = x_ptr + row[:, None] * SIZE + c[None, :]
    if EVEN:
        tl.store(place, value.to(x_ptr.dtype.element_ty))
    else:
        tl.store(place, value.to(x_ptr.dtype.element_ty), mask=(row[:, None] < tokens) & (c[None, :] < SIZE))


@triton.jit
def load_state(state_ptr, index, c, SIZE: tl.constexpr):
    place = state_ptr + index * (SIZE * SIZE) + c[:, None] * SIZE + c[None, :]
    return tl.load(place, mask=(c[:, None] < SIZE) & (c[None, :] < SIZE), other=0.0)


@triton.jit
def store_state(state_ptr, state, index, c, SIZE: tl.constexpr):
    there = (c[:, None] < SIZE) & (c[None, :] < SIZE)
    place = state_ptr + index * (SIZE * SIZE) + c[:, None] * SIZE + c[None, :]
    tl.store(place, state.to(state_ptr.dtype.element_ty), mask=there)


@triton.jit
def diffuse(k_ptr, taps_ptr, position, row, c, tokens, SIZE: tl.constexpr, TAPS: tl.constexpr, EVEN: tl.constexpr):
    """k~ (L, C) in float32: the sum over j < W of a_j k_(t-j) within the document. Taps (W, C) of the head."""
    # A row may begin in the middle of a document: what came before is not there.
    before = tl.minimum(position, row)
    total = load_tile(k_ptr, row, c, tokens, SIZE, EVEN).to(tl.float32) * load_tap(taps_ptr, 0, c, SIZE)[None, :]
    for j in tl.static_range(1, TAPS):
        earlier = load_tile(k_ptr, tl.maximum(row - j, 0), c, tokens, SIZE, EVEN).to(tl.float32)
        total += tl.where((before >= j)[:, None], earlier, 0.0) * load_tap(taps_ptr, j, c, SIZE)[None, :]
    return total


@triton.jit
def load_tap(taps_ptr, j, c, SIZE: tl.constexpr):
    return tl.load(taps_ptr + j * SIZE + c, mask=c < SIZE, other=0.0).to(tl.float32)


@triton.jit
def load_places(position_ptr, passed_ptr, row, tokens, EVEN: tl.constexpr):
    """Of each token its place and the log decay summed from the chunk's start. Padding sees only itself."""
    if EVEN:
        return tl.load(position_ptr + row).to(tl.int32), tl.load(passed_ptr + row).to(tl.float32)
    there = row < tokens
    position = tl.load(position_ptr + row, mask=there, other=0).to(tl.int32)
    return position, tl.load(passed_ptr + row, mask=there, other=0.0).to(tl.float32)


@triton.jit
def chunk_end(position_ptr, passed_ptr, begin, tokens, L: tl.constexpr):
    """The chunk's sum of log decays, the first row of its last document, and what it keeps of the state before it."""
    final = tl.minimum(begin + L, tokens) - 1
    total = tl.load(passed_ptr + final).to(tl.float32)
    last_first = final - tl.load(position_ptr + final).to(tl.int32)
    return total, last_first, tl.where(last_first < begin, tl.exp2(total), 0.0)


@triton.jit
def left_share(passed, row, total, last_first):
    """How much of each token's contribution the state after the chunk holds."""
    return tl.where(row >= last_first, tl.exp2(total - passed), 0.0)


@triton.jit
def reach_share(passed, position, row, begin, scale):
    """2^scale of how much of the state before the chunk each token sees."""
    return tl.where(row - position < begin, tl.exp2(passed + scale), 0.0)


@triton.jit
def pair_weights(passed, position, row, scale, PRECISION: tl.constexpr):
    """(L of t, L of s): 2^scale of what a token t keeps of the contribution of s; zero where it does not see it."""
    # As an unsigned number the age of a later token is larger than any place.
    seen = (row[:, None] - row[None, :]).to(tl.uint32) <= position.to(tl.uint32)[:, None]
    return power(tl.where(seen, (passed + scale)[:, None] - passed[None, :], float("-inf")), PRECISION)


@triton.jit
def pair_weights_turned(passed, position, row, scale, PRECISION: tl.constexpr):
    """The same, (L of s, L of t)."""
    seen = (row[None, :] - row[:, None]).to(tl.uint32) <= position.to(tl.uint32)[None, :]
    return power(tl.where(seen, (passed + scale)[None, :] - passed[:, None], float("-inf")), PRECISION)
