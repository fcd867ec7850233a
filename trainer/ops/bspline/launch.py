"""Launches of the edge layer's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

library.py decides and has checked; tiles and stages stand here, for a sweep and for compiling ahead of time.
Letters: N tokens, I inputs, O outputs, J = G + 4 features of an input, S parts of the tokens, E groups of tokens.
Where ends_E is given, rows of group e end before ends_E[e], and weights and their gradients are (E, J, I, O).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from .grid import SplineGrid
from .kernel_triton import (
    contract_kernel,
    expand_kernel,
    forward_kernel,
    gather_kernel,
    input_gradient_kernel,
    weight_gradient_kernel,
)

# Tiles and the like, by kernel; chosen by thought so far, to be swept on a GPU (bench/tiles.py).
EXPAND: Mapping[str, int] = {"ROWS": 4, "COLUMNS": 256, "num_warps": 4}
FORWARD: Mapping[str, int] = {"BN": 128, "BI": 64, "BO": 128, "num_warps": 8, "num_stages": 3}
INPUT_GRADIENT: Mapping[str, int] = {"BN": 128, "BI": 64, "BO": 64, "num_warps": 8, "num_stages": 3}
WEIGHT_GRADIENT: Mapping[str, int] = {"BN": 64, "BI": 64, "BO": 128, "num_warps": 4, "num_stages": 3}
GATHER: Mapping[str, int] = {"BI": 16, "BO": 256, "num_warps": 4}
# Programs that a weight gradient, or a gathered pass, should have; fewer leave multiprocessors idle.
PROGRAMS = 264


def expand(x_NI: Tensor, grid: SplineGrid, tiles: Mapping[str, int] = EXPAND) -> Tensor:
    """Features (N, J, I) of inputs whose rows may lie apart by any stride."""
    rows, inputs = x_NI.shape
    out_NJI = x_NI.new_empty((rows, grid.bases + 1, inputs))
    if out_NJI.numel():
        blocks = (cdiv(rows, tiles["ROWS"]), cdiv(inputs, tiles["COLUMNS"]))
        expand_kernel[blocks](x_NI, out_NJI, rows, inputs, x_NI.stride(0), *_places(grid), **tiles)
    return out_NJI


def contract(
    x_NI: Tensor, grad_NJI: Tensor, out_NI: Tensor, grid: SplineGrid, tiles: Mapping[str, int] = EXPAND
) -> Tensor:
    """Write the gradient of the inputs (N, I), from that of their features, to out_NI and give it back."""
    rows, inputs = x_NI.shape
    if out_NI.numel():
        blocks = (cdiv(rows, tiles["ROWS"]), cdiv(inputs, tiles["COLUMNS"]))
        contract_kernel[blocks](x_NI, grad_NJI, out_NI, rows, inputs, *_places(grid), **tiles)
    return out_NI


def forward(
    x_NI: Tensor,
    weight_JIO: Tensor,
    grid: SplineGrid,
    ends_E: Tensor | None = None,
    tiles: Mapping[str, int] = FORWARD,
) -> Tensor:
    """The layer's outputs (N, O)."""
    (tokens, inputs), outputs = x_NI.shape, weight_JIO.shape[-1]
    y_NO = x_NI.new_empty((tokens, outputs))
    if y_NO.numel():
        blocks = (_row_tiles(tokens, ends_E, tiles), cdiv(outputs, tiles["BO"]))
        sizes = (tokens, inputs, outputs, inputs * outputs)
        named = {**_groups(ends_E), "PRECISION": _precision(x_NI), **tiles}
        forward_kernel[blocks](x_NI, weight_JIO, y_NO, _pointer(ends_E, x_NI), *sizes, *_places(grid), **named)
    return y_NO


def input_gradient(
    x_NI: Tensor,
    weight_JIO: Tensor,
    grad_NO: Tensor,
    grid: SplineGrid,
    ends_E: Tensor | None = None,
    tiles: Mapping[str, int] = INPUT_GRADIENT,
) -> Tensor:
    """The gradient of the inputs (N, I)."""
    (tokens, inputs), outputs = x_NI.shape, weight_JIO.shape[-1]
    out_NI = torch.empty_like(x_NI)
    if out_NI.numel():
        blocks = (_row_tiles(tokens, ends_E, tiles), cdiv(inputs, tiles["BI"]))
        tensors = (x_NI, weight_JIO, grad_NO, out_NI, _pointer(ends_E, x_NI))
        sizes = (tokens, inputs, outputs, inputs * outputs)
        named = {**_groups(ends_E), "PRECISION": _precision(x_NI), **tiles}
        input_gradient_kernel[blocks](*tensors, *sizes, *_places(grid), **named)
    return out_NI


def weight_gradient(
    x_NI: Tensor,
    grad_NO: Tensor,
    grid: SplineGrid,
    ends_E: Tensor | None = None,
    tiles: Mapping[str, int] = WEIGHT_GRADIENT,
) -> Tensor:
    """The gradient of the weight. Few tiles of one weight are cut into parts of the tokens, summed in a fixed order."""
    tokens, inputs, outputs = *x_NI.shape, grad_NO.shape[1]
    shape = (grid.bases + 1, inputs, outputs)
    blocks = (shape[0] * cdiv(inputs, tiles["BI"]), cdiv(outputs, tiles["BO"]))
    if not inputs * outputs:
        return x_NI.new_empty(shape if ends_E is None else (len(ends_E), *shape))
    most = max(1, min(PROGRAMS // (blocks[0] * blocks[1]), tokens // (4 * tiles["BN"])))
    parts = most if ends_E is None else len(ends_E)
    each = cdiv(cdiv(tokens, parts), tiles["BN"]) * tiles["BN"]
    is_whole = ends_E is not None or parts == 1
    out_SJIO = x_NI.new_empty((parts, *shape), dtype=x_NI.dtype if is_whole else torch.float32)
    named = {**_groups(ends_E), "PRECISION": _precision(x_NI), **tiles}
    tensors = (x_NI, grad_NO, out_SJIO, _pointer(ends_E, x_NI))
    weight_gradient_kernel[(*blocks, parts)](*tensors, tokens, inputs, outputs, each, *_places(grid), **named)
    if ends_E is not None:
        return out_SJIO
    return out_SJIO[0] if is_whole else out_SJIO.sum(0).to(x_NI.dtype)


def gather(
    x_NI: Tensor,
    weight_JIO: Tensor,
    grid: SplineGrid,
    ends_E: Tensor | None = None,
    tiles: Mapping[str, int] = GATHER,
) -> Tensor:
    """The layer's outputs (N, O) for few tokens: of each edge only the weights that its input makes live are read."""
    (tokens, inputs), outputs = x_NI.shape, weight_JIO.shape[-1]
    if not x_NI.numel() * outputs:
        return x_NI.new_zeros((tokens, outputs))
    columns = cdiv(outputs, tiles["BO"])
    parts = max(1, min(PROGRAMS // (columns * tokens), cdiv(inputs, tiles["BI"])))
    each = cdiv(cdiv(inputs, parts), tiles["BI"]) * tiles["BI"]
    parts = cdiv(inputs, each)
    out_NSO = x_NI.new_empty((tokens, parts, outputs), dtype=torch.float32)
    tensors = (x_NI, weight_JIO, out_NSO, _pointer(ends_E, x_NI))
    sizes = (inputs, outputs, each, inputs * outputs)
    gather_kernel[(columns, parts, tokens)](*tensors, *sizes, *_places(grid), **_groups(ends_E), **tiles)
    return out_NSO.sum(1).to(x_NI.dtype)


def _row_tiles(tokens: int, ends_E: Tensor | None, tiles: Mapping[str, int]) -> int:
    """As many tiles as rows can need: how many a group has is known on the device alone."""
    return int(cdiv(tokens, tiles["BN"])) + (0 if ends_E is None else len(ends_E))


def _groups(ends_E: Tensor | None) -> dict[str, int]:
    groups = 0 if ends_E is None else len(ends_E)
    return {"GROUPS": groups, "PADDED": next_power_of_2(max(1, groups))}


def _pointer(ends_E: Tensor | None, unread: Tensor) -> Tensor:
    return unread if ends_E is None else ends_E


def _places(grid: SplineGrid) -> tuple[float, float, int]:
    return grid.limit, grid.cells_per_unit, grid.cells


def _precision(x: Tensor) -> str:
    # Float32 means float32 here: the tensor cores' shorter form has an error of 3e-4.
    return "ieee" if x.dtype == torch.float32 else "tf32"


def compilations() -> list[tuple[Any, dict[str, int | str]]]:
    """Each kernel with the constants and options of its launches: both precisions, five cells and 13, groups."""
    shared: list[tuple[Any, Mapping[str, int | str]]] = [(expand_kernel, EXPAND), (contract_kernel, EXPAND)]
    grouped: list[tuple[Any, Mapping[str, int | str]]] = [(gather_kernel, GATHER)]
    products = (
        (forward_kernel, FORWARD),
        (input_gradient_kernel, INPUT_GRADIENT),
        (weight_gradient_kernel, WEIGHT_GRADIENT),
    )
    for precision in ("tf32", "ieee"):
        grouped += [(kernel, {**tiles, "PRECISION": precision}) for kernel, tiles in products]
    one_weight = shared + [(kernel, {**named, "GROUPS": 0, "PADDED": 1}) for kernel, named in grouped]
    each = [(kernel, {"CELLS": cells, **named}) for cells in (5, 13) for kernel, named in one_weight]
    return each + [(kernel, {"CELLS": 5, **named, "GROUPS": 12, "PADDED": 16}) for kernel, named in grouped]
