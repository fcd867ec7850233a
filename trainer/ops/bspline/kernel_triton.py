"""Triton kernels of the edge layer: features and their contraction for slabs, and the three products fused with them.

launch.py launches them; nothing is checked here.
Letters: N tokens, I inputs, O outputs, G cells, J = G + 4 features of an input (G + 3 bases, then SiLU).
Where tokens are grouped, rows of group e end before ends[e] and have a weight of their own; GROUPS = 0: one weight.
u is computed in float32 and every sum is in float32, whatever the dtype of inputs and weights.
"""

import triton
import triton.language as tl


@triton.jit
def _coordinate(x, limit, scale, CELLS: tl.constexpr):
    """The place in the grid, in cells, and whether it is outside; NaN counts as inside and stays."""
    u = (x + limit) * scale
    return u, (u < 0.0) | (u > CELLS)


@triton.jit
def _relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _feature(x, u, outside, j, CELLS: tl.constexpr):
    """Feature j of inputs: basis j for j < G + 3, else SiLU. Source: MODEL.md section 1, dense form."""
    if j == CELLS + 3:
        value = x / (1.0 + tl.exp(-x))
    else:
        t = tl.abs(u - (j - 1.0))
        near, far = _relu(1.0 - t), _relu(2.0 - t)
        value = tl.where(outside, 0.0, (far * far * far - 4.0 * near * near * near) * (1.0 / 6.0))
    return value


@triton.jit
def _slope(x, u, outside, j, scale, CELLS: tl.constexpr):
    """The derivative of feature j by x."""
    if j == CELLS + 3:
        gate = 1.0 / (1.0 + tl.exp(-x))
        value = gate * (1.0 + x * (1.0 - gate))
    else:
        v = u - (j - 1.0)
        t = tl.abs(v)
        near, far = _relu(1.0 - t), _relu(2.0 - t)
        slope = (4.0 * near * near - far * far) * (0.5 * scale)
        # At v = 0 the slope is 0 by itself; a NaN is in it already.
        value = tl.where(outside, 0.0, tl.where(v < 0.0, -slope, slope))
    return value


@triton.jit
def _rows_of_tile(ends_ptr, tile, rows, GROUPS: tl.constexpr, PADDED: tl.constexpr, BN: tl.constexpr):
    """The group of a tile of BN rows, the tile's first row, and where its rows end; no rows beyond the last tile.

    Each group begins a tile of its own, so up to GROUPS tiles more are launched than the rows fill.
    """
    if GROUPS == 0:
        group, first, last = tile * 0, tile * BN, rows
    else:
        e = tl.arange(0, PADDED)
        end = tl.load(ends_ptr + e, mask=e < GROUPS, other=0)
        begin = tl.load(ends_ptr + e - 1, mask=(e > 0) & (e < GROUPS), other=0)
        tiles = tl.where(e < GROUPS, (end - begin + BN - 1) // BN, 0)
        is_before = tl.cumsum(tiles, 0) <= tile
        # All of PADDED are before a tile that is beyond the last.
        group = tl.sum(is_before.to(tl.int32), 0)
        is_mine = e == group
        first = tl.sum(tl.where(is_mine, begin, 0), 0) + (tile - tl.sum(tl.where(is_before, tiles, 0), 0)) * BN
        last = tl.sum(tl.where(is_mine, end, 0), 0)
        first = tl.where(group < GROUPS, first, 0)
    return group, first, last


@triton.jit
def expand_kernel(
    x_ptr, out_ptr, rows, inputs, x_stride, limit, scale,
    CELLS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Inputs (rows, inputs) to features (rows, J, inputs), contiguous."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    there = (row < rows) & (column < inputs)
    x = tl.load(x_ptr + row * x_stride + column, mask=there, other=0.0).to(tl.float32)
    u, outside = _coordinate(x, limit, scale, CELLS)
    place = out_ptr + row * ((CELLS + 4) * inputs) + column
    for j in tl.static_range(CELLS + 4):
        tl.store(place + j * inputs, _feature(x, u, outside, j, CELLS).to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def contract_kernel(
    x_ptr, grad_ptr, out_ptr, rows, inputs, limit, scale,
    CELLS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """sum over j of grad (rows, J, inputs) times the slope of feature j, to (rows, inputs)."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    there = (row < rows) & (column < inputs)
    x = tl.load(x_ptr + row * inputs + column, mask=there, other=0.0).to(tl.float32)
    u, outside = _coordinate(x, limit, scale, CELLS)
    place = grad_ptr + row * ((CELLS + 4) * inputs) + column
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for j in tl.static_range(CELLS + 4):
        grad = tl.load(place + j * inputs, mask=there, other=0.0).to(tl.float32)
        total += grad * _slope(x, u, outside, j, scale, CELLS)
    tl.store(out_ptr + row * inputs + column, total.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def forward_kernel(
    x_ptr, weight_ptr, y_ptr, ends_ptr, tokens, inputs, outputs, slice_stride, limit, scale,
    CELLS: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """y (N, O) = features of x (N, I), made in registers, times the weight (J, I, O), or that of each row's group.

    One loop over all (inputs, j), so that weights are loaded ahead; a tile of inputs is loaded while one works.
    """
    group, first_row, tokens = _rows_of_tile(ends_ptr, tl.program_id(0), tokens, GROUPS, PADDED, BN)
    if first_row >= tokens:
        return
    weight_ptr += group.to(tl.int64) * (CELLS + 4) * slice_stride
    row = (first_row + tl.arange(0, BN))[:, None].to(tl.int64)
    column = (tl.program_id(1) * BO + tl.arange(0, BO))[None, :]
    x_row = x_ptr + row * inputs
    i = tl.arange(0, BI)
    coming = tl.load(x_row + i[None, :], mask=(row < tokens) & (i[None, :] < inputs), other=0.0)
    x = coming.to(tl.float32)
    u, outside = _coordinate(x, limit, scale, CELLS)
    total = tl.zeros((BN, BO), tl.float32)
    for step in range(tl.cdiv(inputs, BI) * (CELLS + 4)):
        j = step % (CELLS + 4)
        first = step // (CELLS + 4) * BI
        if PRECISION == "ieee":
            # Triton 3.6 cannot compile a choice between tiles that go into a product without tensor cores.
            x = tl.load(x_row + (first + i)[None, :], mask=(row < tokens) & ((first + i)[None, :] < inputs), other=0.0)
            u, outside = _coordinate(x, limit, scale, CELLS)
        elif j == 0:
            x = coming.to(tl.float32)
            u, outside = _coordinate(x, limit, scale, CELLS)
            after = first + BI + i[None, :]
            coming = tl.load(x_row + after, mask=(row < tokens) & (after < inputs), other=0.0)
        place = weight_ptr + j.to(tl.int64) * slice_stride + (first + i)[:, None].to(tl.int64) * outputs + column
        weight = tl.load(place, mask=((first + i)[:, None] < inputs) & (column < outputs), other=0.0)
        feature = _feature(x, u, outside, j, CELLS).to(weight.dtype)
        total = tl.dot(feature, weight, total, input_precision=PRECISION)
    there = (row < tokens) & (column < outputs)
    tl.store(y_ptr + row * outputs + column, total.to(y_ptr.dtype.element_ty), mask=there)


@triton.jit
def input_gradient_kernel(
    x_ptr, weight_ptr, grad_ptr, out_ptr, ends_ptr, tokens, inputs, outputs, slice_stride, limit, scale,
    CELLS: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """dx (N, I) = sum over j of (dy (N, O) times the weight's slice j transposed) times the slope of feature j.

    One loop over all (j, outputs), so that loads run ahead across the border of two slices.
    """
    group, first_row, tokens = _rows_of_tile(ends_ptr, tl.program_id(0), tokens, GROUPS, PADDED, BN)
    if first_row >= tokens:
        return
    weight_ptr += group.to(tl.int64) * (CELLS + 4) * slice_stride
    row = (first_row + tl.arange(0, BN))[:, None].to(tl.int64)
    i = (tl.program_id(1) * BI + tl.arange(0, BI))[None, :]
    there = (row < tokens) & (i < inputs)
    x = tl.load(x_ptr + row * inputs + i, mask=there, other=0.0).to(tl.float32)
    u, outside = _coordinate(x, limit, scale, CELLS)
    total = tl.zeros((BN, BI), tl.float32)
    part = tl.zeros((BN, BI), tl.float32)
    steps = tl.cdiv(outputs, BO)
    for step in range((CELLS + 4) * steps):
        j = step // steps
        o = (step % steps) * BO + tl.arange(0, BO)
        grad = tl.load(grad_ptr + row * outputs + o[None, :], mask=(row < tokens) & (o[None, :] < outputs), other=0.0)
        place = weight_ptr + j.to(tl.int64) * slice_stride + i.to(tl.int64) * outputs + o[:, None]
        weight_OI = tl.load(place, mask=(i < inputs) & (o[:, None] < outputs), other=0.0)
        part = tl.dot(grad, weight_OI, part, input_precision=PRECISION)
        if step % steps == steps - 1:
            total += part * _slope(x, u, outside, j, scale, CELLS)
            part = tl.zeros((BN, BI), tl.float32)
    tl.store(out_ptr + row * inputs + i, total.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def weight_gradient_kernel(
    x_ptr, grad_ptr, out_ptr, ends_ptr, tokens, inputs, outputs, tokens_each, limit, scale,
    CELLS: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr, PRECISION: tl.constexpr,
    BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """dw (S, J, I, O): slice j of it = feature j of x transposed times dy, over the tokens of each of S parts.

    A part is a group of tokens, or without groups tokens_each of them.
    """
    i_tiles = tl.cdiv(inputs, BI)
    j, part = tl.program_id(0) // i_tiles, tl.program_id(2)
    i = (tl.program_id(0) % i_tiles * BI + tl.arange(0, BI))[:, None]
    o = (tl.program_id(1) * BO + tl.arange(0, BO))[None, :]
    total = tl.zeros((BI, BO), tl.float32)
    if GROUPS == 0:
        begin = part * tokens_each
        last = tl.minimum(begin + tokens_each, tokens)
    else:
        begin = tl.load(ends_ptr + part - 1, mask=part > 0, other=0)
        last = tl.load(ends_ptr + part)
    for first in range(begin, last, BN):
        row = (first + tl.arange(0, BN)).to(tl.int64)
        x_IN = tl.load(x_ptr + row[None, :] * inputs + i, mask=(row[None, :] < last) & (i < inputs), other=0.0)
        grad = tl.load(grad_ptr + row[:, None] * outputs + o, mask=(row[:, None] < last) & (o < outputs), other=0.0)
        x_IN = x_IN.to(tl.float32)
        u, outside = _coordinate(x_IN, limit, scale, CELLS)
        # What is loaded beyond the last token meets rows of dy that are zero.
        total = tl.dot(_feature(x_IN, u, outside, j, CELLS).to(grad.dtype), grad, total, input_precision=PRECISION)
    place = ((part * (CELLS + 4) + j).to(tl.int64) * inputs + i) * outputs + o
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=(i < inputs) & (o < outputs))


@triton.jit
def live_edges(
    x, i, o, weight_ptr, inputs, outputs, slice_stride, limit, scale, CELLS: tl.constexpr,
):  # fmt: skip
    """(BI, BO): what each edge's curve gives for its input x, from its live weights alone, (4 + 1) of each.

    The live bases lie at m to m + 3; outside the grid they count nothing, and NaN is SiLU's to carry.
    """
    u = (x + limit) * scale
    inside = (u >= 0.0) & (u <= CELLS)
    u = tl.where(inside, u, 0.0)
    m = tl.minimum(tl.floor(u), CELLS - 1.0)
    f = u - m
    g = 1.0 - f
    there = (i[:, None] < inputs) & (o[None, :] < outputs)
    edge = i[:, None].to(tl.int64) * outputs + o[None, :]
    place = weight_ptr + m.to(tl.int64)[:, None] * slice_stride + edge
    sixth = tl.where(inside, 1.0 / 6.0, 0.0)
    first = tl.load(place, mask=there, other=0.0)
    second = tl.load(place + slice_stride, mask=there, other=0.0)
    third = tl.load(place + 2 * slice_stride, mask=there, other=0.0)
    fourth = tl.load(place + 3 * slice_stride, mask=there, other=0.0)
    of_silu = tl.full((1, 1), CELLS + 3, tl.int64) * slice_stride + edge
    last = tl.load(weight_ptr + of_silu, mask=there, other=0.0)
    y = (g * g * g * sixth)[:, None] * first.to(tl.float32)
    y += ((4.0 - 3.0 * f * f * (2.0 - f)) * sixth)[:, None] * second.to(tl.float32)
    y += ((4.0 - 3.0 * g * g * (2.0 - g)) * sixth)[:, None] * third.to(tl.float32)
    y += (f * f * f * sixth)[:, None] * fourth.to(tl.float32)
    return y + (x / (1.0 + tl.exp(-x)))[:, None] * last.to(tl.float32)


@triton.jit
def gather_kernel(
    x_ptr, weight_ptr, out_ptr, ends_ptr, inputs, outputs, inputs_each, slice_stride, limit, scale,
    CELLS: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """out (N, S, O): of each token, over the inputs of each of S parts, from the live weights alone."""
    token, part = tl.program_id(2), tl.program_id(1)
    group, _, _ = _rows_of_tile(ends_ptr, token, 0, GROUPS, PADDED, 1)
    weight_ptr += group.to(tl.int64) * (CELLS + 4) * slice_stride
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    total = tl.zeros((BO,), tl.float32)
    last = tl.minimum((part + 1) * inputs_each, inputs)
    for first in range(part * inputs_each, last, BI):
        i = first + tl.arange(0, BI)
        x = tl.load(x_ptr + token.to(tl.int64) * inputs + i, mask=i < last, other=0.0).to(tl.float32)
        edges = live_edges(x, i, o, weight_ptr, last, outputs, slice_stride, limit, scale, CELLS)
        total += tl.sum(edges, 0)
    place = out_ptr + (token * tl.num_programs(1) + part).to(tl.int64) * outputs
    tl.store(place + o, total, mask=o < outputs)
