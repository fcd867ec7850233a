"""The edge layer's product: y_no = sum_i [w_io silu(x_ni) + sum_k c_kio B_k(x_ni)], forward and backward.

Weights are one tensor (K + 1, I, O): the K = G + 3 spline coefficients of each edge, then its SiLU weight. A fused
kernel can take the place of plain PyTorch without touching a checkpoint. README.md has the mathematics.
"""

from torch import Tensor

from .features import EdgeForm
from .grid import SplineGrid
from .grouped import grouped_edge_linear
from .library import edge_linear_op

__all__ = ["EdgeForm", "SplineGrid", "edge_linear", "grouped_edge_linear"]


def edge_linear(x: Tensor, weight_JIO: Tensor, grid: SplineGrid, form: EdgeForm = "cell") -> Tensor:
    """Edge layer of any number of inputs.

    Args:
        x: (..., I), floating point; the useful range is the grid's, beyond it only the SiLU part is left.
        weight_JIO: (G + 4, I, O), x's dtype and device; rows 0 to G + 2 the coefficients, the last row SiLU's.
        grid: the splines' grid.
        form: how bases are evaluated, `dense` (all K) or `cell` (the four live ones); the values are the same.

    Returns:
        (..., O) in x's dtype. The bases are computed in float32 at least, whatever the dtype.
    """
    if weight_JIO.shape[0] != grid.bases + 1 or weight_JIO.shape[1] != x.shape[-1]:
        wanted = (grid.bases + 1, x.shape[-1], "O")
        raise ValueError(f"wanted a weight of shape {wanted}, found {tuple(weight_JIO.shape)}")
    if weight_JIO.dtype != x.dtype:
        raise TypeError(f"wanted a weight of the input's dtype {x.dtype}, found {weight_JIO.dtype}")
    x_NI = x.reshape(-1, x.shape[-1])
    y_NO: Tensor = edge_linear_op(x_NI.contiguous(), weight_JIO.contiguous(), grid.cells, grid.limit, form)
    return y_NO.reshape(*x.shape[:-1], weight_JIO.shape[-1])
