"""Launches of diffusion attention's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: B batch, H heads, T tokens, C head size, W taps, N chunks, G segments of them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from .kernel_gradient_triton import (
    decay_gradient_kernel,
    diffusion_gradient_kernel,
    key_gradient_kernel,
    query_gradient_kernel,
)
from .kernel_triton import added_kernel, output_kernel, passed_kernel, scan_kernel, step_kernel
from .library import chunk_of

# Programs that a pass should have at least: two fit on a multiprocessor. Of 256 to 2,112 these 512 won on an H100
# (2026-11), as did the options below; with 8 warps or what registers must be spilled for, all are slower.
PROGRAMS = 512
ADDED: Mapping[str, int] = {"num_warps": 4, "num_stages": 3}
OUTPUT: Mapping[str, int] = {"num_warps": 4, "num_stages": 2}
QUERY_GRADIENT: Mapping[str, int] = {"num_warps": 4, "num_stages": 2}
KEY_GRADIENT: Mapping[str, int] = {"num_warps": 4, "num_stages": 2}
# For these in place of the four above: heads of more than 64 channels, and float32. Not swept.
LARGE: Mapping[str, int] = {"num_warps": 8, "num_stages": 1}
UNDIFFUSE: Mapping[str, int] = {"BR": 32, "num_warps": 4}
# Chunks of a program that takes gradients back through the taps, at most.
UNDIFFUSED = 8
STEP: Mapping[str, int] = {"BV": 32, "num_warps": 4}
SCAN: Mapping[str, int] = {"BV": 128, "num_warps": 1}
SUMS: Mapping[str, int] = {"BN": 16, "num_warps": 4}


class AdaInputs(NamedTuple):
    """Contiguous tensors, as `ada` takes them; log decays (B, H, T)."""

    q_BHTC: Tensor
    k_BHTC: Tensor
    v_BHTC: Tensor
    taps_HCW: Tensor
    log_decay_BHT: Tensor
    position_BT: Tensor


class _Plan(NamedTuple):
    """How a call is cut, and what its kernels are compiled for."""

    pairs: int
    """Of a row and a head."""
    chunks: int
    segments: int
    walk: int
    """Chunks of a segment."""
    heads: int
    root: float
    constants: dict[str, int | str]
    is_large: bool
    """Whether LARGE holds."""

    @property
    def grid(self) -> tuple[int, int]:
        """A program for each segment."""
        return self.segments, self.pairs

    def options(self, chosen: Mapping[str, int]) -> Mapping[str, int]:
        return LARGE if self.is_large else chosen

    def only(self, *names: str) -> dict[str, int | str]:
        return {name: self.constants[name] for name in names}


def _plan(inputs: AdaInputs) -> _Plan:
    batch, heads, tokens, size = inputs.q_BHTC.shape
    pairs, chunk = batch * heads, chunk_of(inputs.v_BHTC)
    chunks = cdiv(tokens, chunk)
    # Of nothing there is still one, so that no size is divided by zero.
    wanted = max(1, min(chunks, cdiv(PROGRAMS, max(1, pairs))))
    walk = max(1, cdiv(chunks, wanted))
    padded = max(16, next_power_of_2(size))
    is_wide = inputs.v_BHTC.dtype == torch.float32
    segments = cdiv(chunks, walk)
    constants: dict[str, int | str] = {
        "SIZE": size,
        "TAPS": inputs.taps_HCW.shape[2],
        # Float32 means float32 here: the tensor cores' shorter form has an error of 3e-4.
        "PRECISION": "ieee" if is_wide else "tf32",
        "EVEN": tokens % chunk == 0 and size == padded,
        "WHOLE": segments == 1,
        "L": chunk,
        "BC": padded,
    }
    return _Plan(pairs, chunks, segments, walk, heads, size**-0.5, constants, is_wide or padded > 64)


def ada_forward(inputs: AdaInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs (B, H, T, C) and what the backward pass wants again, and the last state (B, H, C, C) in float32.

    In between: the states before each chunk (B, H, N, C of values, C of keys) in the values' dtype, as products read
    them, and the log decays summed from each chunk's start, to base 2 (B, H, T).
    """
    batch, heads, tokens, size = inputs.q_BHTC.shape
    plan, taps_HWC = _plan(inputs), inputs.taps_HCW.transpose(1, 2).contiguous()
    out_BHTC = torch.empty_like(inputs.v_BHTC)
    before_BHNCC = inputs.v_BHTC.new_empty((batch, heads, plan.chunks, size, size))
    last_BHCC = inputs.v_BHTC.new_empty((batch, heads, size, size), dtype=torch.float32)
    passed_BHT = _passed(inputs, plan)
    given = (taps_HWC, passed_BHT, inputs.position_BT)
    sizes = (tokens, plan.chunks, plan.walk, heads)
    start_BHGCC, kept_BHG = _borders(inputs, plan)
    if plan.segments > 1:
        added_kernel[plan.grid](
            inputs.k_BHTC, inputs.v_BHTC, *given, start_BHGCC, kept_BHG, *sizes,
            **plan.only("SIZE", "TAPS", "PRECISION", "EVEN", "L", "BC"), **plan.options(ADDED),
        )  # fmt: skip
        _scan(start_BHGCC, kept_BHG, reverse=False)
    output_kernel[plan.grid](
        *inputs[:3], *given, start_BHGCC, before_BHNCC, out_BHTC, last_BHCC, *sizes, plan.root,
        **plan.constants, **plan.options(OUTPUT),
    )  # fmt: skip
    return out_BHTC, before_BHNCC, passed_BHT, last_BHCC


def ada_backward(
    inputs: AdaInputs, before_BHNCC: Tensor, passed_BHT: Tensor, grad_BHTC: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v in their dtype, of the taps and of the log decays in float32."""
    batch, heads, tokens, size = inputs.q_BHTC.shape
    plan, taps_HWC = _plan(inputs), inputs.taps_HCW.transpose(1, 2).contiguous()
    given, sizes = (passed_BHT, inputs.position_BT), (tokens, plan.chunks, plan.walk, heads, plan.root)
    after_BHGCC, kept_BHG = _borders(inputs, plan)
    grad_q, grad_k, grad_v = (torch.empty_like(inputs.v_BHTC) for _ in range(3))
    gained_BHT, spent_BHT = torch.empty_like(passed_BHT), torch.empty_like(passed_BHT)
    worth_BHNC = passed_BHT.new_empty((batch, heads, plan.chunks, size))
    head_BHNWC = grad_k.new_empty((batch, heads, plan.chunks, inputs.taps_HCW.shape[2] - 1, size))
    query_gradient_kernel[plan.grid](
        *inputs[:3], taps_HWC, *given, before_BHNCC, grad_BHTC, grad_q, grad_k, gained_BHT, after_BHGCC, kept_BHG,
        *sizes, **plan.constants, **plan.options(QUERY_GRADIENT),
    )  # fmt: skip
    if plan.segments > 1:
        _scan(after_BHGCC, kept_BHG, reverse=True)
    key_gradient_kernel[plan.grid](
        inputs.q_BHTC, inputs.v_BHTC, *given, before_BHNCC, after_BHGCC, grad_BHTC,
        grad_k, grad_v, head_BHNWC, spent_BHT, worth_BHNC, *sizes, **plan.constants,
        STAGES=plan.options(KEY_GRADIENT)["num_stages"], **plan.options(KEY_GRADIENT),
    )  # fmt: skip
    grad_taps = _undiffuse(inputs, plan, taps_HWC, grad_k, head_BHNWC)
    grad_decay = _decay_gradient(inputs, plan, (gained_BHT, spent_BHT, worth_BHNC))
    return grad_q, grad_k, grad_v, grad_taps, grad_decay


def _passed(inputs: AdaInputs, plan: _Plan) -> Tensor:
    passed_BHT = torch.empty_like(inputs.log_decay_BHT, dtype=torch.float32)
    passed_kernel[(cdiv(plan.chunks, SUMS["BN"]), plan.pairs)](
        inputs.log_decay_BHT, inputs.position_BT, passed_BHT, passed_BHT.shape[2], plan.chunks, plan.heads,
        **plan.only("L"), **SUMS,
    )  # fmt: skip
    return passed_BHT


def _borders(inputs: AdaInputs, plan: _Plan) -> tuple[Tensor, Tensor]:
    """Room for a state at each segment's border, and for what each segment keeps; none where it is a whole row."""
    batch, heads, _, size = inputs.q_BHTC.shape
    segments = plan.segments if plan.segments > 1 else 0
    state_BHGCC = inputs.q_BHTC.new_empty((batch, heads, segments, size, size), dtype=torch.float32)
    return state_BHGCC, state_BHGCC.new_empty((batch, heads, segments))


def _scan(state_BHGCC: Tensor, kept_BHG: Tensor, *, reverse: bool) -> None:
    batch, heads, segments, size, _ = state_BHGCC.shape
    scan_kernel[(cdiv(size * size, SCAN["BV"]), batch * heads)](
        state_BHGCC, kept_BHG, segments, REVERSE=reverse, VALUES=size * size, **SCAN
    )


def _undiffuse(inputs: AdaInputs, plan: _Plan, taps_HWC: Tensor, grad_k: Tensor, head_BHNWC: Tensor) -> Tensor:
    """The gradient of k in the place of that of the diffused keys; the taps' (H, C, W)."""
    batch, heads, tokens, _ = grad_k.shape
    walk = min(plan.walk, UNDIFFUSED)
    segments = cdiv(plan.chunks, walk)
    grad_taps_BHGWC = taps_HWC.new_empty((batch, heads, segments, *taps_HWC.shape[1:]), dtype=torch.float32)
    diffusion_gradient_kernel[(segments, plan.pairs)](
        grad_k, inputs.k_BHTC, taps_HWC, inputs.position_BT, head_BHNWC, grad_taps_BHGWC,
        tokens, plan.chunks, walk, heads, **plan.only("SIZE", "TAPS", "PRECISION", "EVEN", "L", "BC"),
        STAGES=1 if plan.is_large else 3, **UNDIFFUSE,
    )  # fmt: skip
    return grad_taps_BHGWC.sum((0, 2)).transpose(1, 2)


def _decay_gradient(inputs: AdaInputs, plan: _Plan, sums: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    grad_decay_BHT = torch.empty_like(inputs.log_decay_BHT, dtype=torch.float32)
    decay_gradient_kernel[(cdiv(plan.chunks, SUMS["BN"]), plan.pairs)](
        inputs.position_BT, *sums, grad_decay_BHT, grad_decay_BHT.shape[2], plan.chunks, plan.heads,
        **plan.only("SIZE", "L", "BC"), **SUMS,
    )  # fmt: skip
    return grad_decay_BHT


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
    every: dict[str, int | str] = {"SIZE": 64, "TAPS": 4, "PRECISION": "tf32", "EVEN": True, "L": 64, "BC": 64}
    plan = _Plan(1, 1, 1, 1, 1, 1.0, every, False)
    return [
        (passed_kernel, {**plan.only("L"), **SUMS}),
        (added_kernel, {**every, **ADDED}),
        (scan_kernel, {"REVERSE": False, "VALUES": 64 * 64, **SCAN}),
        (output_kernel, {**every, "WHOLE": False, **OUTPUT}),
        (query_gradient_kernel, {**every, "WHOLE": False, **QUERY_GRADIENT}),
        (key_gradient_kernel, {**every, "WHOLE": False, "STAGES": KEY_GRADIENT["num_stages"], **KEY_GRADIENT}),
        (decay_gradient_kernel, {**plan.only("SIZE", "L", "BC"), **SUMS}),
        (diffusion_gradient_kernel, {**every, "STAGES": 3, **UNDIFFUSE}),
        (step_kernel, {**plan.only("SIZE", "TAPS", "BC"), **STEP}),
    ]
