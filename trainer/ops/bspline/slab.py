"""The edge layer's three products by a library's matrix product, with a workspace that does not grow with the tokens.

A slab is a part of the features, or of their gradient: it is made, multiplied, and its memory used again. How features
are made is the caller's: plain PyTorch or a kernel. Letters: N tokens, I inputs, O outputs, J features of an input.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Expand = Callable[[Tensor], Tensor]
"""Inputs (n, i), rows apart by any stride, to features (n, J, i), contiguous."""
Contract = Callable[[Tensor, Tensor, Tensor], object]
"""Inputs (n, I), the gradient of their features (n, J, I), and where to write the gradient of the inputs (n, I)."""

# With the vendor library's own 32 MiB this stays below 0.15 GB.
SLAB_BYTES = 96 << 20
# Products are fastest where slabs begin at multiples of a tile's rows.
TILE = 128


def forward(x_NI: Tensor, weight_JIO: Tensor, expand: Expand, slab_bytes: int = SLAB_BYTES) -> Tensor:
    """The layer's outputs (N, O) in x's dtype."""
    weight_FO = weight_JIO.flatten(0, 1)
    y_NO = x_NI.new_empty((len(x_NI), weight_FO.shape[1]))
    for rows in _slabs(len(x_NI), len(weight_FO) * x_NI.element_size(), slab_bytes):
        torch.mm(expand(x_NI[rows]).flatten(1), weight_FO, out=y_NO[rows])
    return y_NO


def input_gradient(
    x_NI: Tensor, weight_JIO: Tensor, grad_NO: Tensor, contract: Contract, slab_bytes: int = SLAB_BYTES
) -> Tensor:
    """The gradient of the inputs (N, I): a slab of the features' gradient at a time."""
    weight_OF = weight_JIO.flatten(0, 1).T
    features_shape = (-1, weight_JIO.shape[0], weight_JIO.shape[1])
    grad_x_NI = torch.empty_like(x_NI)
    for rows in _slabs(len(x_NI), weight_OF.shape[1] * x_NI.element_size(), slab_bytes):
        contract(x_NI[rows], (grad_NO[rows] @ weight_OF).view(features_shape), grad_x_NI[rows])
    return grad_x_NI


def weight_gradient(
    x_NI: Tensor, grad_NO: Tensor, features: int, expand: Expand, slab_bytes: int = SLAB_BYTES
) -> Tensor:
    """The gradient of the weight (J, I, O). Slabs are of inputs with all tokens: each sum is made in one product."""
    tokens, inputs = x_NI.shape
    grad_JIO = x_NI.new_empty((features, inputs, grad_NO.shape[1]))
    for columns in _slabs(inputs, tokens * features * x_NI.element_size(), slab_bytes):
        slab_NJi = expand(x_NI[:, columns])
        if slab_NJi.shape[2] == inputs:
            torch.mm(slab_NJi.flatten(1).T, grad_NO, out=grad_JIO.flatten(0, 1))
        else:
            slab_JiN = slab_NJi.permute(1, 2, 0)
            torch.bmm(slab_JiN, grad_NO.expand(features, -1, -1), out=grad_JIO[:, columns])
            del slab_JiN
        # Before the next slab is made: two at once would be twice the workspace.
        del slab_NJi
    return grad_JIO


def _slabs(count: int, bytes_each: int, slab_bytes: int) -> Iterator[slice]:
    """Slices that cover `count`, even in size and within the bytes as far as one tile is."""
    least = min(count, TILE)
    most = max(least, slab_bytes // max(1, bytes_each))
    pieces = max(1, -(-count // max(1, most)))
    size = max(1, -(-count // pieces))
    if pieces > 1:
        # Rounded up to whole tiles, unless that would pass the limit.
        size = min(-(-size // TILE) * TILE, max(TILE, most // TILE * TILE))
    return (slice(first, min(first + size, count)) for first in range(0, count, size))
