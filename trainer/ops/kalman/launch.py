"""Launches of the Kalman filter's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: B rows, T tokens, D channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from triton import cdiv

from .kernel_triton import estimate_kernel, noise_gradient_kernel, observed_gradient_kernel, variance_kernel

# Chosen by thought so far, to be swept on a GPU: a chunk's scan takes log2(BT) rounds, a program walks T / BT chunks.
KERNELS = (variance_kernel, estimate_kernel, observed_gradient_kernel, noise_gradient_kernel)
TILES: Mapping[str, int] = {"BT": 32, "BD": 32, "num_warps": 4}


def kalman_forward(
    observed_BTD: Tensor, noise_BTD: Tensor, drift_D: Tensor, position_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Estimates and variances after each token, both (B, T, D) in float32."""
    estimate_BTD = observed_BTD.new_empty(observed_BTD.shape, dtype=torch.float32)
    variance_BTD = observed_BTD.new_empty(observed_BTD.shape, dtype=torch.float32)
    if estimate_BTD.numel():
        rows, tokens, channels = observed_BTD.shape
        grid = (rows, cdiv(channels, TILES["BD"]))
        variance_kernel[grid](noise_BTD, drift_D, position_BT, variance_BTD, tokens, channels, **TILES)
        estimate_kernel[grid](
            observed_BTD, noise_BTD, drift_D, position_BT, variance_BTD, estimate_BTD, tokens, channels, **TILES
        )
    return estimate_BTD, variance_BTD


def kalman_backward(
    grad_BTD: Tensor,
    observed_BTD: Tensor,
    noise_BTD: Tensor,
    drift_D: Tensor,
    position_BT: Tensor,
    estimate_BTD: Tensor,
    variance_BTD: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the observations, the noise and the drift, in float32."""
    rows, tokens, channels = observed_BTD.shape
    grad_observed_BTD, of_gain_BTD = torch.empty_like(estimate_BTD), torch.empty_like(estimate_BTD)
    grad_noise_BTD, grad_drift_BD = torch.empty_like(estimate_BTD), estimate_BTD.new_empty((rows, channels))
    if not grad_observed_BTD.numel():
        return grad_observed_BTD, grad_noise_BTD, grad_drift_BD.new_zeros(channels)
    grid = (rows, cdiv(channels, TILES["BD"]))
    observed_gradient_kernel[grid](
        grad_BTD, observed_BTD, noise_BTD, drift_D, position_BT, variance_BTD, estimate_BTD,
        grad_observed_BTD, of_gain_BTD, tokens, channels, **TILES,
    )  # fmt: skip
    noise_gradient_kernel[grid](
        of_gain_BTD, noise_BTD, drift_D, position_BT, variance_BTD, grad_noise_BTD, grad_drift_BD,
        tokens, channels, **TILES,
    )  # fmt: skip
    return grad_observed_BTD, grad_noise_BTD, grad_drift_BD.sum(0)


def compilations() -> list[tuple[Any, dict[str, int | str]]]:
    """Each kernel with the constants and options of a launch."""
    return [(kernel, dict(TILES)) for kernel in KERNELS]
