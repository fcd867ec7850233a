"""The edge layer as operators of torch's library: what torch.compile, CUDA graphs and checkpointing see of it.

Each has an implementation for CPU and CUDA and one that only tells shapes. Second derivatives are not there: asking for
them is an error.
"""

from typing import Any

import torch
from torch import Tensor

from ..route import dtype_name, machine_of
from . import hopper, slab
from .features import EdgeForm
from .grid import SplineGrid
from .plain import plain_forward, plain_input_gradient, plain_weight_gradient
from .route import EdgeRoutes, route_edge_linear


@torch.library.custom_op("kanctl::edge_linear", mutates_args=())
def edge_linear_op(x_NI: Tensor, weight_JIO: Tensor, cells: int, limit: float, form: str) -> Tensor:
    """Outputs (N, O) of contiguous inputs (N, I) and a weight (G + 4, I, O) of one dtype."""
    grid, routes = SplineGrid(cells=cells, limit=limit), _routes(x_NI, weight_JIO)
    if routes.forward.implementation == "torch":
        return plain_forward(x_NI, weight_JIO, grid, _form(form))
    if routes.forward.implementation == "cuda":
        return hopper.forward(x_NI, weight_JIO, limit)
    from . import launch

    if routes.forward.implementation == "gather":
        return launch.gather(x_NI, weight_JIO, grid)
    return slab.forward(x_NI, weight_JIO, lambda x_NI: launch.expand(x_NI, grid))


@torch.library.custom_op("kanctl::edge_linear_backward", mutates_args=())
def edge_linear_backward_op(
    grad_NO: Tensor, x_NI: Tensor, weight_JIO: Tensor, cells: int, limit: float, form: str, wants_x: bool, wants_w: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the inputs and of the weight; an empty tensor for the one that is not wanted."""
    grid, routes = SplineGrid(cells=cells, limit=limit), _routes(x_NI, weight_JIO)
    grad_x_NI, grad_weight_JIO = x_NI.new_empty(0), x_NI.new_empty(0)
    if wants_x:
        grad_x_NI = _input_gradient(x_NI, weight_JIO, grad_NO, grid, _form(form), routes)
    if wants_w:
        grad_weight_JIO = _weight_gradient(x_NI, grad_NO, grid, _form(form), routes)
    return grad_x_NI, grad_weight_JIO


def _input_gradient(
    x_NI: Tensor, weight_JIO: Tensor, grad_NO: Tensor, grid: SplineGrid, form: EdgeForm, routes: EdgeRoutes
) -> Tensor:
    if routes.input_gradient.implementation == "torch":
        return plain_input_gradient(x_NI, weight_JIO, grad_NO, grid, form)
    if routes.input_gradient.implementation == "cuda":
        return hopper.input_gradient(x_NI, weight_JIO, grad_NO, grid.limit)
    from . import launch

    return slab.input_gradient(
        x_NI, weight_JIO, grad_NO, lambda x_NI, grad_NJI, out_NI: launch.contract(x_NI, grad_NJI, out_NI, grid)
    )


def _weight_gradient(x_NI: Tensor, grad_NO: Tensor, grid: SplineGrid, form: EdgeForm, routes: EdgeRoutes) -> Tensor:
    if routes.weight_gradient.implementation == "torch":
        return plain_weight_gradient(x_NI, grad_NO, grid, form)
    if routes.weight_gradient.implementation == "cuda":
        return hopper.weight_gradient(x_NI, grad_NO, grid.limit)
    from . import launch

    return slab.weight_gradient(x_NI, grad_NO, grid.bases + 1, lambda x_NI: launch.expand(x_NI, grid))


def _routes(x_NI: Tensor, weight_JIO: Tensor) -> EdgeRoutes:
    features, inputs, outputs = weight_JIO.shape
    machine, dtype = machine_of(x_NI.device), dtype_name(x_NI)
    return route_edge_linear(
        machine,
        features=features,
        inputs=inputs,
        outputs=outputs,
        dtype=dtype,
        tokens=len(x_NI),
        unbuilt=hopper.unbuilt_here(machine, features, inputs, outputs, dtype),
    )


def _form(form: str) -> EdgeForm:
    return "dense" if form == "dense" else "cell"


@edge_linear_op.register_fake
def _(x_NI: Tensor, weight_JIO: Tensor, cells: int, limit: float, form: str) -> Tensor:
    return x_NI.new_empty((x_NI.shape[0], weight_JIO.shape[2]))


@edge_linear_backward_op.register_fake
def _(
    grad_NO: Tensor, x_NI: Tensor, weight_JIO: Tensor, cells: int, limit: float, form: str, wants_x: bool, wants_w: bool
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x_NI) if wants_x else x_NI.new_empty(0),
        torch.empty_like(weight_JIO) if wants_w else x_NI.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x_NI, weight_JIO, *ctx.options = inputs
    ctx.save_for_backward(x_NI, weight_JIO)


def _backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
    x_NI, weight_JIO = ctx.saved_tensors
    wants_x, wants_w = ctx.needs_input_grad[:2]
    grad_x_NI, grad_weight_JIO = edge_linear_backward_op(
        grad_NO.contiguous(), x_NI, weight_JIO, *ctx.options, wants_x, wants_w
    )
    return grad_x_NI if wants_x else None, grad_weight_JIO if wants_w else None, None, None, None


edge_linear_op.register_autograd(_backward, setup_context=_save)
