"""Launches of diffusion attention's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: B batch, H heads, T tokens, C head size, W taps, N chunks.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from .kernel_triton import (
    added_kernel,
    asked_kernel,
    decay_gradient_kernel,
    diffusion_gradient_kernel,
    key_gradient_kernel,
    output_kernel,
    query_gradient_kernel,
    states_kernel,
    step_kernel,
)
from .library import CHUNK

# Chosen by thought so far, to be swept on a GPU, the chunk too (library.py): the state of a chunk is C / L of its keys,
# twice that in float32.
FORWARD: Mapping[str, int] = {"num_warps": 4, "num_stages": 2}
BACKWARD: Mapping[str, int] = {"num_warps": 8, "num_stages": 1}
STEP: Mapping[str, int] = {"BV": 32, "num_warps": 4}
SCAN: Mapping[str, int] = {"BV": 128, "num_warps": 1}


class AdaInputs(NamedTuple):
    """Contiguous tensors, as `ada` takes them; log decays (B, H, T)."""

    q_BHTC: Tensor
    k_BHTC: Tensor
    v_BHTC: Tensor
    taps_HCW: Tensor
    log_decay_BHT: Tensor
    position_BT: Tensor


def ada_forward(inputs: AdaInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (B, H, T, C) and what the backward pass wants again, and the last state (B, H, C, C) in float32.

    In between: the states before each chunk (B, H, N, C, C) in the values' dtype, as products read them, and what each
    chunk leaves of the state before it (B, H, N).
    """
    batch, heads, tokens, size = inputs.q_BHTC.shape
    chunks = cdiv(tokens, CHUNK)
    grid = (chunks, batch * heads)
    given = (inputs.taps_HCW, inputs.log_decay_BHT, inputs.position_BT)
    added_BHNCC = inputs.q_BHTC.new_empty((batch, heads, chunks, size, size), dtype=torch.float32)
    kept_BHN = inputs.q_BHTC.new_empty((batch, heads, chunks), dtype=torch.float32)
    out_BHTC = torch.empty_like(inputs.v_BHTC)
    added_kernel[grid](
        inputs.k_BHTC, inputs.v_BHTC, *given, added_BHNCC, kept_BHN, tokens, chunks, heads,
        **_constants(inputs), **FORWARD,
    )  # fmt: skip
    before_BHNCC, last_BHCC = _scanned(added_BHNCC, kept_BHN, inputs.v_BHTC.dtype, reverse=False)
    output_kernel[grid](
        inputs.q_BHTC, inputs.k_BHTC, inputs.v_BHTC, *given, before_BHNCC, out_BHTC, tokens, chunks, heads, size**-0.5,
        **_constants(inputs), **FORWARD,
    )  # fmt: skip
    return out_BHTC, before_BHNCC, kept_BHN, last_BHCC


def ada_backward(
    inputs: AdaInputs, before_BHNCC: Tensor, kept_BHN: Tensor, grad_BHTC: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v in their dtype, of the taps and of the log decays in float32."""
    batch, heads, tokens, size = inputs.q_BHTC.shape
    chunks = cdiv(tokens, CHUNK)
    grid, root, constants = (chunks, batch * heads), size**-0.5, _constants(inputs)
    asked_BHNCC = torch.empty_like(before_BHNCC, dtype=torch.float32)
    asked_kernel[grid](
        inputs.q_BHTC, grad_BHTC, inputs.log_decay_BHT, inputs.position_BT, asked_BHNCC, tokens, chunks, heads, root,
        **_only(constants, "SIZE", "PRECISION", "L", "BC"), **FORWARD,
    )  # fmt: skip
    after_BHNCC, _ = _scanned(asked_BHNCC, kept_BHN, inputs.v_BHTC.dtype, reverse=True)
    grad_q, grad_diffused, grad_v, grad_k = (torch.empty_like(inputs.v_BHTC) for _ in range(4))
    grad_decay = torch.empty_like(inputs.log_decay_BHT, dtype=torch.float32)
    gained, spent = torch.empty_like(grad_decay), torch.empty_like(grad_decay)
    sizes = (tokens, chunks, heads, root)
    key_gradient_kernel[grid](
        *inputs, after_BHNCC, grad_BHTC, grad_diffused, grad_v, spent, *sizes, **constants, **BACKWARD
    )
    query_gradient_kernel[grid](*inputs, before_BHNCC, grad_BHTC, grad_q, gained, *sizes, **constants, **BACKWARD)
    decay_gradient_kernel[grid](
        inputs.position_BT, before_BHNCC, after_BHNCC, gained, spent, grad_decay, tokens, chunks, heads,
        **_only(constants, "SIZE", "L", "BC"), **FORWARD,
    )  # fmt: skip
    taps = inputs.taps_HCW.shape[2]
    grad_taps = inputs.q_BHTC.new_empty((batch, heads, chunks, size, taps), dtype=torch.float32)
    diffusion_gradient_kernel[grid](
        grad_diffused, inputs.k_BHTC, inputs.taps_HCW, inputs.position_BT, grad_k, grad_taps, tokens, chunks, heads,
        **_only(constants, "SIZE", "TAPS", "L", "BC"), **FORWARD,
    )  # fmt: skip
    return grad_q, grad_k, grad_v, grad_taps.sum((0, 2)), grad_decay


def _scanned(added_BHNCC: Tensor, kept_BHN: Tensor, dtype: torch.dtype, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state before each chunk, or reversed its gradient after each, and the one at the end."""
    batch, heads, chunks, size, _ = added_BHNCC.shape
    before_BHNCC = torch.empty_like(added_BHNCC, dtype=dtype)
    last_BHCC = added_BHNCC.new_empty((batch, heads, size, size))
    states_kernel[(cdiv(size * size, SCAN["BV"]), batch * heads)](
        added_BHNCC, kept_BHN, before_BHNCC, last_BHCC, chunks, REVERSE=reverse, VALUES=size * size, **SCAN
    )
    return before_BHNCC, last_BHCC


def _constants(inputs: AdaInputs) -> dict[str, int | str]:
    size = inputs.q_BHTC.shape[3]
    return {
        "SIZE": size,
        "TAPS": inputs.taps_HCW.shape[2],
        # Float32 means float32 here: the tensor cores' shorter form has an error of 3e-4.
        "PRECISION": "ieee" if inputs.v_BHTC.dtype == torch.float32 else "tf32",
        "L": CHUNK,
        "BC": max(16, next_power_of_2(size)),
    }


def _only(constants: Mapping[str, int | str], *names: str) -> dict[str, int | str]:
    return {name: constants[name] for name in names}


def ada_step(
    q_BHC: Tensor,
    k_BHC: Tensor,
    v_BHC: Tensor,
    taps_HCW: Tensor,
    log_decay_BH: Tensor,
    position_B: Tensor,
    sum_BHCC: Tensor,
    tail_BHWC: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """One token's outputs (B, H, C), the state after it and the keys that stay; all inputs contiguous."""
    batch, heads, size = q_BHC.shape
    out_BHC, after_BHCC, tail_out_BHWC = (
        torch.empty_like(v_BHC),
        torch.empty_like(sum_BHCC),
        torch.empty_like(tail_BHWC),
    )
    if out_BHC.numel():
        step_kernel[(batch * heads, cdiv(size, STEP["BV"]))](
            q_BHC, k_BHC, v_BHC, taps_HCW, log_decay_BH, position_B, sum_BHCC, tail_BHWC, after_BHCC, tail_out_BHWC,
            out_BHC, heads, size**-0.5, SIZE=size, TAPS=taps_HCW.shape[2], BC=next_power_of_2(size), **STEP,
        )  # fmt: skip
    return out_BHC, after_BHCC, tail_out_BHWC


def compilations() -> list[tuple[Any, dict[str, int | str]]]:
    """Each kernel with the constants and options of a launch with heads of 64 and four taps."""
    every: dict[str, int | str] = {"SIZE": 64, "TAPS": 4, "PRECISION": "tf32", "L": CHUNK, "BC": 64}
    return [
        (added_kernel, {**every, **FORWARD}),
        (states_kernel, {"REVERSE": False, "VALUES": 64 * 64, **SCAN}),
        (output_kernel, {**every, **FORWARD}),
        (asked_kernel, {**_only(every, "SIZE", "PRECISION", "L", "BC"), **FORWARD}),
        (key_gradient_kernel, {**every, **BACKWARD}),
        (query_gradient_kernel, {**every, **BACKWARD}),
        (decay_gradient_kernel, {**_only(every, "SIZE", "L", "BC"), **FORWARD}),
        (diffusion_gradient_kernel, {**_only(every, "SIZE", "TAPS", "L", "BC"), **FORWARD}),
        (step_kernel, {**_only(every, "SIZE", "TAPS", "BC"), **STEP}),
    ]
