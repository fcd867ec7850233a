"""Launches of range attention's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: B rows, H heads, T queries, M keys, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from .kernel_triton import forward_kernel, key_gradient_kernel, query_gradient_kernel

# Chosen by thought so far: two tiles of scores and three of channels in registers.
TILES: Mapping[str, int] = {"BT": 64, "BM": 64, "num_warps": 4, "num_stages": 2}
# Products without tensor cores take their operands into registers: tiles as large spill ten kilobytes of them.
WIDE_TILES: Mapping[str, int] = {"BT": 16, "BM": 32, "num_warps": 8, "num_stages": 1}


@dataclass(frozen=True, slots=True)
class RangeInputs:
    """Contiguous tensors; queries, keys and values of one dtype, places in int32."""

    q_BHTC: Tensor
    k_BHMC: Tensor
    v_BHMC: Tensor
    place_BM: Tensor
    """Where each key is. Never falls in a row; nor do low and high."""
    low_BT: Tensor
    high_BT: Tensor
    """A query sees the keys with low <= place <= high."""
    scale: float
    bias: float

    @property
    def numbers(self) -> tuple[int, int, int, int, float, float]:
        """What all kernels take after their tensors."""
        _, heads, tokens, size = self.q_BHTC.shape
        return heads, tokens, self.k_BHMC.shape[2], size, self.scale, self.bias

    @property
    def named(self) -> dict[str, Any]:
        """What all kernels are compiled for."""
        precision = "ieee" if self.q_BHTC.dtype == torch.float32 else "tf32"
        # Products of tensor cores want 16 channels.
        return {"PRECISION": precision, "BC": max(16, next_power_of_2(self.q_BHTC.shape[3])), **self.tiles}

    @property
    def tiles(self) -> Mapping[str, int]:
        """How many queries and keys meet at once."""
        return WIDE_TILES if self.q_BHTC.dtype == torch.float32 else TILES


def range_forward(inputs: RangeInputs) -> tuple[Tensor, Tensor]:
    """Outputs (B, H, T, C), zero where nothing is seen, and log sums (B, H, T) in float32, -inf there."""
    q_BHTC = inputs.q_BHTC
    o_BHTC, lse_BHT = torch.empty_like(q_BHTC), q_BHTC.new_empty(q_BHTC.shape[:3], dtype=torch.float32)
    if o_BHTC.numel():
        bounds = _keys_of_queries(inputs)
        tensors = (q_BHTC, inputs.k_BHMC, inputs.v_BHMC, inputs.place_BM, inputs.low_BT, inputs.high_BT, *bounds)
        forward_kernel[_blocks(inputs, bounds)](*tensors, o_BHTC, lse_BHT, *inputs.numbers, **inputs.named)
    return o_BHTC, lse_BHT


def range_backward(
    inputs: RangeInputs, o_BHTC: Tensor, lse_BHT: Tensor, grad_BHTC: Tensor, grad_lse_BHT: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    outs = [torch.empty_like(x) for x in (inputs.q_BHTC, inputs.k_BHMC, inputs.v_BHMC)]
    if not all(out.numel() for out in outs):
        return outs[0].zero_(), outs[1].zero_(), outs[2].zero_()
    # d lse / d score is the weight itself, so its gradient joins the term that all of a query's keys share.
    delta_BHT = (o_BHTC.float() * grad_BHTC.float()).sum(3) - grad_lse_BHT
    places = (inputs.place_BM, inputs.low_BT, inputs.high_BT)
    operands = (inputs.q_BHTC, inputs.k_BHMC, inputs.v_BHMC, *places)
    given = (grad_BHTC, lse_BHT, delta_BHT)
    keys, queries = _keys_of_queries(inputs), _queries_of_keys(inputs)
    query_gradient_kernel[_blocks(inputs, keys)](*operands, *keys, *given, outs[0], *inputs.numbers, **inputs.named)
    key_gradient_kernel[_blocks(inputs, queries)](
        *operands, *queries, *given, *outs[1:], *inputs.numbers, **inputs.named
    )
    return outs[0], outs[1], outs[2]


def _keys_of_queries(inputs: RangeInputs) -> tuple[Tensor, Tensor]:
    """For each tile of queries the first key that one of them may see, and the one after the last."""
    low_BN, high_BN = _ends(inputs.low_BT, inputs.tiles["BT"])[0], _ends(inputs.high_BT, inputs.tiles["BT"])[1]
    first_BN = torch.searchsorted(inputs.place_BM, low_BN, out_int32=True)
    return first_BN, torch.searchsorted(inputs.place_BM, high_BN, right=True, out_int32=True)


def _queries_of_keys(inputs: RangeInputs) -> tuple[Tensor, Tensor]:
    """For each tile of keys the first query that may see one of them, and the one after the last."""
    low_BN, high_BN = _ends(inputs.place_BM, inputs.tiles["BM"])
    first_BN = torch.searchsorted(inputs.high_BT, low_BN, out_int32=True)
    return first_BN, torch.searchsorted(inputs.low_BT, high_BN, right=True, out_int32=True)


def _ends(x_BT: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """Of numbers that never fall, the least and the largest of each tile, (B, N) both."""
    count = x_BT.shape[1]
    last_N = torch.arange(tile - 1, cdiv(count, tile) * tile, tile, device=x_BT.device).clamp(max=count - 1)
    return x_BT[:, ::tile].contiguous(), x_BT[:, last_N]


def _blocks(inputs: RangeInputs, bounds: tuple[Tensor, Tensor]) -> tuple[int, int]:
    batch, heads = inputs.q_BHTC.shape[:2]
    return bounds[0].shape[1], batch * heads


def compilations() -> list[tuple[Any, dict[str, int | str]]]:
    """Each kernel with the constants and options of a launch with heads of 128, in both precisions."""
    kernels = (forward_kernel, query_gradient_kernel, key_gradient_kernel)
    options: tuple[dict[str, int | str], ...] = (
        {"PRECISION": "tf32", "BC": 128, **TILES},
        {"PRECISION": "ieee", "BC": 128, **WIDE_TILES},
    )
    return [(kernel, {**named}) for kernel in kernels for named in options]
