"""The Kalman filter as operators of torch's library, by whichever implementation is routed to.

Second derivatives are not there: asking for them is an error.
"""

from typing import Any

import torch
from torch import Tensor

from ..route import dtype_name, machine_of
from .plain import plain_backward, plain_forward
from .route import route_kalman


@torch.library.custom_op("kanctl::kalman_filter", mutates_args=())
def kalman_filter_op(
    observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Estimates and variances (B, T, D) in float32 at least, of contiguous inputs."""
    if not _has_kernels(observed_BTD):
        return plain_forward(observed_BTD, noise_BTD, drift_D, position_BT)
    from . import launch

    return launch.kalman_forward(observed_BTD, noise_BTD, drift_D, position_BT)


@torch.library.custom_op("kanctl::kalman_filter_backward", mutates_args=())
def kalman_filter_backward_op(
    grad_BTD: Tensor,
    observed_BTD: Tensor,
    noise_BTD: Tensor,
    drift_D: Tensor,
    position_BT: Tensor,
    estimate_BTD: Tensor,
    variance_BTD: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of observations, noise and drift in the dtypes of these."""
    inputs = (grad_BTD, observed_BTD, noise_BTD, drift_D, position_BT, estimate_BTD, variance_BTD)
    if _has_kernels(observed_BTD):
        from . import launch

        grads = launch.kalman_backward(*inputs)
    else:
        grads = plain_backward(*inputs)
    of_observed, of_noise, of_drift = (
        grad.to(of.dtype) for grad, of in zip(grads, (observed_BTD, noise_BTD, drift_D), strict=True)
    )
    return of_observed, of_noise, of_drift


def _has_kernels(observed_BTD: Tensor) -> bool:
    route = route_kalman(machine_of(observed_BTD.device), dtype=dtype_name(observed_BTD))
    return route.implementation == "triton"


@kalman_filter_op.register_fake
def _(observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(observed_BTD.dtype, torch.float32)
    return torch.empty_like(observed_BTD, dtype=wide), torch.empty_like(observed_BTD, dtype=wide)


@kalman_filter_backward_op.register_fake
def _(
    grad_BTD: Tensor, observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(observed_BTD), torch.empty_like(noise_BTD), torch.empty_like(drift_D)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_BTD: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_BTD is None:
        return None, None, None, None
    return *kalman_filter_backward_op(grad_BTD.contiguous(), *ctx.saved_tensors), None


kalman_filter_op.register_autograd(_backward, setup_context=_save)
