"""The edge layer's product: y_no = sum_i [w_io silu(x_ni) + sum_k c_kio B_k(x_ni)], forward and backward.

Weights are one tensor (K + 1, I, O): the K = G + 3 spline coefficients of each edge, then its SiLU weight. A fused
kernel can take the place of what is here without touching a checkpoint. README.md has the mathematics.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .features import EdgeForm, features, input_gradient
from .grid import SplineGrid

__all__ = ["EdgeForm", "SplineGrid", "edge_linear"]


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
    y_NO: Tensor = _EdgeLinear.apply(x_NI, weight_JIO, grid, form)  # type: ignore[no-untyped-call]
    return y_NO.reshape(*x.shape[:-1], weight_JIO.shape[-1])


class _EdgeLinear(torch.autograd.Function):
    """Keeps only the input for the backward pass: the features, K + 1 times as large, are computed again."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid, form: EdgeForm) -> Tensor:
        ctx.save_for_backward(x_NI, weight_JIO)
        ctx.grid, ctx.form = grid, form
        return features(x_NI, grid, form).flatten(1) @ weight_JIO.flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (grad_NO,) = grads
        x_NI, weight_JIO = ctx.saved_tensors
        grad_x_NI = grad_weight_JIO = None
        if ctx.needs_input_grad[0]:
            grad_NJI = (grad_NO @ weight_JIO.flatten(0, 1).T).unflatten(1, (-1, x_NI.shape[1]))
            grad_x_NI = input_gradient(x_NI, grad_NJI, ctx.grid, ctx.form)
        if ctx.needs_input_grad[1]:
            features_NF = features(x_NI, ctx.grid, ctx.form).flatten(1)
            grad_weight_JIO = (features_NF.T @ grad_NO).view_as(weight_JIO)
        return grad_x_NI, grad_weight_JIO, None, None
