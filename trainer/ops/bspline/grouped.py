"""Edge layers of a grove's subnets, for rows grouped by subnet, as operators of torch's library.

Letters: M rows, E groups, I inputs, O outputs. Rows of group e end before ends_E[e], so that group 0 begins at row 0
and the last end is M. The ends stay on the device: no kernel waits for the host to read them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..route import dtype_name, machine_of
from . import hopper
from .features import EdgeForm
from .grid import SplineGrid
from .plain import plain_forward, plain_input_gradient, plain_weight_gradient
from .route import EdgeRoutes, route_grouped_edge_linear


def grouped_edge_linear(
    x_MI: Tensor, weight_EJIO: Tensor, ends_E: Tensor, grid: SplineGrid, form: EdgeForm = "cell"
) -> Tensor:
    """The edge layer of each row's group, (M, O) in x's dtype.

    Args:
        x_MI: rows in the order of their groups, of any floating dtype.
        weight_EJIO: (E, G + 4, I, O), x's dtype and device; each group's as edge_linear's.
        ends_E: int32 on x's device, never falling, the last one M.
        grid: the splines' grid.
        form: how bases are evaluated in plain PyTorch, `dense` or `cell`; the values are the same.
    """
    if weight_EJIO.dim() != 4 or weight_EJIO.shape[1:3] != (grid.bases + 1, x_MI.shape[-1]):
        wanted = ("E", grid.bases + 1, x_MI.shape[-1], "O")
        raise ValueError(f"wanted a weight of shape {wanted}, found {tuple(weight_EJIO.shape)}")
    if ends_E.dtype != torch.int32 or ends_E.shape != weight_EJIO.shape[:1]:
        found = f"{ends_E.dtype} {tuple(ends_E.shape)}"
        raise ValueError(f"wanted an int32 end of each of {len(weight_EJIO)} groups, found {found}")
    if weight_EJIO.dtype != x_MI.dtype:
        raise TypeError(f"wanted a weight of the input's dtype {x_MI.dtype}, found {weight_EJIO.dtype}")
    y_MO: Tensor = grouped_edge_linear_op(
        x_MI.contiguous(), weight_EJIO.contiguous(), ends_E, grid.cells, grid.limit, form
    )
    return y_MO


@torch.library.custom_op("kanctl::grouped_edge_linear", mutates_args=())
def grouped_edge_linear_op(
    x_MI: Tensor, weight_EJIO: Tensor, ends_E: Tensor, cells: int, limit: float, form: str
) -> Tensor:
    """Outputs (M, O) of contiguous inputs."""
    grid, route = SplineGrid(cells=cells, limit=limit), _routes(x_MI, weight_EJIO).forward.implementation
    if route == "torch":
        y_MO = x_MI.new_empty((len(x_MI), weight_EJIO.shape[3]))
        for group, rows in _each_group(ends_E):
            y_MO[rows] = plain_forward(x_MI[rows], weight_EJIO[group], grid, _form(form))
        return y_MO
    if route == "cuda":
        return hopper.forward(x_MI, weight_EJIO, limit, ends_E)
    from . import launch

    run: Callable[..., Tensor] = launch.gather if route == "gather" else launch.forward
    return run(x_MI, weight_EJIO, grid, ends_E)


@torch.library.custom_op("kanctl::grouped_edge_linear_backward", mutates_args=())
def grouped_edge_linear_backward_op(
    grad_MO: Tensor,
    x_MI: Tensor,
    weight_EJIO: Tensor,
    ends_E: Tensor,
    cells: int,
    limit: float,
    form: str,
    wants_x: bool,
    wants_w: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the inputs and of the weights; an empty tensor for what is not wanted. Empty groups have zeros."""
    grid, routes = SplineGrid(cells=cells, limit=limit), _routes(x_MI, weight_EJIO)
    grad_x_MI = torch.empty_like(x_MI) if wants_x else x_MI.new_empty(0)
    grad_weight_EJIO = torch.empty_like(weight_EJIO) if wants_w else x_MI.new_empty(0)
    if routes.input_gradient.implementation == "torch":
        for group, rows in _each_group(ends_E):
            x, grad = x_MI[rows], grad_MO[rows]
            if wants_x:
                grad_x_MI[rows] = plain_input_gradient(x, weight_EJIO[group], grad, grid, _form(form))
            if wants_w:
                grad_weight_EJIO[group] = plain_weight_gradient(x, grad, grid, _form(form))
        return grad_x_MI, grad_weight_EJIO
    if routes.input_gradient.implementation == "cuda":
        if wants_x:
            grad_x_MI = hopper.input_gradient(x_MI, weight_EJIO, grad_MO, limit, ends_E)
        if wants_w:
            grad_weight_EJIO = hopper.weight_gradient(x_MI, grad_MO, limit, ends_E)
        return grad_x_MI, grad_weight_EJIO
    from . import launch

    if wants_x:
        grad_x_MI = launch.input_gradient(x_MI, weight_EJIO, grad_MO, grid, ends_E)
    if wants_w:
        grad_weight_EJIO = launch.weight_gradient(x_MI, grad_MO, grid, ends_E)
    return grad_x_MI, grad_weight_EJIO


def _each_group(ends_E: Tensor) -> Iterator[tuple[int, slice]]:
    first = 0
    for group, end in enumerate(ends_E.tolist()):
        yield group, slice(first, end)
        first = end


def _routes(x_MI: Tensor, weight_EJIO: Tensor) -> EdgeRoutes:
    groups, features, inputs, outputs = weight_EJIO.shape
    machine, dtype = machine_of(x_MI.device), dtype_name(x_MI)
    return route_grouped_edge_linear(
        machine,
        features=features,
        groups=groups,
        inputs=inputs,
        outputs=outputs,
        dtype=dtype,
        rows=len(x_MI),
        unbuilt=hopper.unbuilt_here(machine, features, inputs, outputs, dtype),
    )


def _form(form: str) -> EdgeForm:
    return "dense" if form == "dense" else "cell"


@grouped_edge_linear_op.register_fake
def _(x_MI: Tensor, weight_EJIO: Tensor, ends_E: Tensor, cells: int, limit: float, form: str) -> Tensor:
    return x_MI.new_empty((x_MI.shape[0], weight_EJIO.shape[3]))


@grouped_edge_linear_backward_op.register_fake
def _(
    grad_MO: Tensor,
    x_MI: Tensor,
    weight_EJIO: Tensor,
    ends_E: Tensor,
    cells: int,
    limit: float,
    form: str,
    wants_x: bool,
    wants_w: bool,
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x_MI) if wants_x else x_MI.new_empty(0),
        torch.empty_like(weight_EJIO) if wants_w else x_MI.new_empty(0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x_MI, weight_EJIO, ends_E, *ctx.options = inputs
    ctx.save_for_backward(x_MI, weight_EJIO, ends_E)


def _backward(ctx: Any, grad_MO: Tensor) -> tuple[Tensor | None, ...]:
    wants_x, wants_w = ctx.needs_input_grad[:2]
    grad_x_MI, grad_weight_EJIO = grouped_edge_linear_backward_op(
        grad_MO.contiguous(), *ctx.saved_tensors, *ctx.options, wants_x, wants_w
    )
    return grad_x_MI if wants_x else None, grad_weight_EJIO if wants_w else None, None, None, None, None


grouped_edge_linear_op.register_autograd(_backward, setup_context=_save)
