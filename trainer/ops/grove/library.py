"""KalmaGrove as operators of torch's library: the choice, tokens to rows, rows to tokens, forward and backward.

Each has an implementation for CPU and CUDA and one that only tells shapes. Second derivatives are not there.
Letters: N tokens, E experts, S = E r + E views of a token (selectors', then gates'), k chosen per token, M = N k rows,
C channels; place_Nk (int64) is where a token's rows are.
"""

from typing import Any

import torch
from torch import Tensor

from ..route import dtype_name, machine_of
from .plain import LEAST_SCORE, plain_choose, plain_choose_gradient
from .route import route_dispatch


@torch.library.custom_op("kanctl::grove_choose", mutates_args=())
def choose_op(seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, shift_E: Tensor, active: int) -> tuple[Tensor, Tensor]:
    """Weights (N, k) and experts (N, k) of contiguous inputs of one dtype, float32 at least."""
    if not _has_kernels(seen_NS):
        return plain_choose(seen_NS, scale_E, bias_E, shift_E, active)
    from . import launch

    return launch.choose(seen_NS, scale_E, bias_E, shift_E, active, LEAST_SCORE)


@torch.library.custom_op("kanctl::grove_choose_backward", mutates_args=())
def choose_backward_op(
    grad_Nk: Tensor, seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, expert_Nk: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of views, scales and biases."""
    if not _has_kernels(seen_NS):
        return plain_choose_gradient(grad_Nk, seen_NS, scale_E, bias_E, expert_Nk)
    from . import launch

    return launch.choose_gradient(grad_Nk, seen_NS, scale_E, bias_E, expert_Nk, LEAST_SCORE)


@torch.library.custom_op("kanctl::grove_spread", mutates_args=())
def spread_op(x_NC: Tensor, place_Nk: Tensor) -> Tensor:
    """Rows (M, C), of which place[n, j] is x[n]."""
    return _spread(x_NC, place_Nk, None)


@torch.library.custom_op("kanctl::grove_add_up", mutates_args=())
def add_up_op(rows_MC: Tensor, place_Nk: Tensor, weight_Nk: Tensor) -> Tensor:
    """Tokens (N, C): sums over j of weight[n, j] times row place[n, j]."""
    return _add_up(rows_MC, place_Nk, weight_Nk)


@torch.library.custom_op("kanctl::grove_spread_backward", mutates_args=())
def spread_backward_op(grad_MC: Tensor, place_Nk: Tensor) -> Tensor:
    """Tokens (N, C): sums over j of row place[n, j]."""
    return _add_up(grad_MC, place_Nk, None)


@torch.library.custom_op("kanctl::grove_add_up_backward", mutates_args=())
def add_up_backward_op(grad_NC: Tensor, rows_MC: Tensor, place_Nk: Tensor, weight_Nk: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of rows and weights."""
    grad_MC = _spread(grad_NC, place_Nk, weight_Nk)
    if _has_kernels(rows_MC):
        from . import launch

        return grad_MC, launch.share_gradient(rows_MC, place_Nk, grad_NC, weight_Nk)
    rows_NkC = rows_MC[place_Nk].to(weight_Nk.dtype)
    return grad_MC, (rows_NkC * grad_NC[:, None].to(weight_Nk.dtype)).sum(2)


def _spread(x_NC: Tensor, place_Nk: Tensor, weight_Nk: Tensor | None) -> Tensor:
    if _has_kernels(x_NC):
        from . import launch

        return launch.spread(x_NC, place_Nk, weight_Nk)
    copies_NkC = x_NC[:, None].expand(-1, place_Nk.shape[1], -1)
    if weight_Nk is not None:
        copies_NkC = copies_NkC * weight_Nk[..., None].to(x_NC.dtype)
    rows_MC = x_NC.new_empty((place_Nk.numel(), x_NC.shape[1]))
    return rows_MC.index_copy_(0, place_Nk.flatten(), copies_NkC.flatten(0, 1))


def _add_up(rows_MC: Tensor, place_Nk: Tensor, weight_Nk: Tensor | None) -> Tensor:
    if _has_kernels(rows_MC):
        from . import launch

        return launch.add_up(rows_MC, place_Nk, weight_Nk)
    rows_NkC = rows_MC[place_Nk]
    return (rows_NkC if weight_Nk is None else rows_NkC * weight_Nk[..., None].to(rows_MC.dtype)).sum(1)


def _has_kernels(x: Tensor) -> bool:
    return route_dispatch(machine_of(x.device), dtype=dtype_name(x)).implementation == "triton"


@choose_op.register_fake
def _(seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, shift_E: Tensor, active: int) -> tuple[Tensor, Tensor]:
    shape = (seen_NS.shape[0], active)
    return seen_NS.new_empty(shape), seen_NS.new_empty(shape, dtype=torch.int64)


@choose_backward_op.register_fake
def _(
    grad_Nk: Tensor, seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, expert_Nk: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(seen_NS), torch.empty_like(scale_E), torch.empty_like(bias_E)


@spread_op.register_fake
def _(x_NC: Tensor, place_Nk: Tensor) -> Tensor:
    return x_NC.new_empty((place_Nk.shape[0] * place_Nk.shape[1], x_NC.shape[1]))


@add_up_op.register_fake
def _(rows_MC: Tensor, place_Nk: Tensor, weight_Nk: Tensor) -> Tensor:
    return rows_MC.new_empty((place_Nk.shape[0], rows_MC.shape[1]))


@spread_backward_op.register_fake
def _(grad_MC: Tensor, place_Nk: Tensor) -> Tensor:
    return grad_MC.new_empty((place_Nk.shape[0], grad_MC.shape[1]))


@add_up_backward_op.register_fake
def _(grad_NC: Tensor, rows_MC: Tensor, place_Nk: Tensor, weight_Nk: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows_MC), torch.empty_like(weight_Nk)


def _save_choose(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _choose_backward(ctx: Any, grad_Nk: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_Nk is None:
        return None, None, None, None, None
    seen_NS, scale_E, bias_E, expert_Nk = ctx.saved_tensors
    return *choose_backward_op(grad_Nk.contiguous(), seen_NS, scale_E, bias_E, expert_Nk), None, None


def _save_spread(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _spread_backward(ctx: Any, grad_MC: Tensor) -> tuple[Tensor | None, ...]:
    return spread_backward_op(grad_MC.contiguous(), *ctx.saved_tensors), None


def _save_add_up(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _add_up_backward(ctx: Any, grad_NC: Tensor) -> tuple[Tensor | None, ...]:
    of_rows, of_weight = add_up_backward_op(grad_NC.contiguous(), *ctx.saved_tensors)
    return of_rows, None, of_weight


choose_op.register_autograd(_choose_backward, setup_context=_save_choose)
spread_op.register_autograd(_spread_backward, setup_context=_save_spread)
add_up_op.register_autograd(_add_up_backward, setup_context=_save_add_up)
