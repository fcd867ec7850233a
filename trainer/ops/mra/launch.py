"""Launches of range attention's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: B rows, H heads, T queries, M keys, C channels.
"""

from collections.abc import Mapping, Sequence
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
# Programs that the keys' gradients should have: blocks are few, and each is seen by all later queries. And the fewest
# queries that are worth a part.
PROGRAMS = 528
LEAST_QUERIES = 512


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
    def operands(self) -> tuple[Tensor, ...]:
        """What all kernels read first."""
        return self.q_BHTC, self.k_BHMC, self.v_BHMC, self.place_BM, self.low_BT, self.high_BT

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


def range_forward(passes: Sequence[RangeInputs]) -> tuple[Tensor, Tensor]:
    """Outputs (B, H, T, C), zero where nothing is seen, and log sums (B, H, T) in float32, -inf there.

    Each of the passes has keys of its own for the same queries; one softmax is over all.
    """
    q_BHTC = passes[0].q_BHTC
    o_BHTC, lse_BHT = torch.empty_like(q_BHTC), q_BHTC.new_empty(q_BHTC.shape[:3], dtype=torch.float32)
    if o_BHTC.numel():
        for number, inputs in enumerate(passes):
            bounds = _keys_of_queries(inputs)
            options = {"MORE": number > 0, **inputs.named}
            forward_kernel[_blocks(inputs, bounds)](
                *inputs.operands, *bounds, o_BHTC, lse_BHT, *inputs.numbers, **options
            )
    return o_BHTC, lse_BHT


def range_backward(
    passes: Sequence[RangeInputs], o_BHTC: Tensor, lse_BHT: Tensor, grad_BHTC: Tensor, grad_lse_BHT: Tensor | None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Gradients of queries, and of each pass's keys and values."""
    grad_q_BHTC, delta_BHT = torch.empty_like(passes[0].q_BHTC), torch.empty_like(lse_BHT)
    if not grad_q_BHTC.numel():
        zeros_k, zeros_v = ([torch.zeros_like(x) for x in each] for each in _keys_and_values(passes))
        return grad_q_BHTC, zeros_k, zeros_v
    given = (grad_BHTC, lse_BHT, delta_BHT)
    # d lse / d score is the weight itself, so its gradient joins the term that all of a query's keys share.
    once = (o_BHTC, delta_BHT if grad_lse_BHT is None else grad_lse_BHT)
    grads = []
    for number, inputs in enumerate(passes):
        keys = _keys_of_queries(inputs)
        options = {"MORE": number > 0, "LSE": grad_lse_BHT is not None, **inputs.named}
        query_gradient_kernel[_blocks(inputs, keys)](
            *inputs.operands, *keys, *given, grad_q_BHTC, *once, *inputs.numbers, **options
        )
        grads.append(_key_gradients(inputs, given))
    grads_k, grads_v = zip(*grads, strict=True)
    return grad_q_BHTC, list(grads_k), list(grads_v)


def _keys_and_values(passes: Sequence[RangeInputs]) -> tuple[list[Tensor], list[Tensor]]:
    return [each.k_BHMC for each in passes], [each.v_BHMC for each in passes]


def _key_gradients(inputs: RangeInputs, given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Of one pass's keys and values. Few tiles of keys cut their queries into parts, which are added in one order."""
    keys = (inputs.k_BHMC, inputs.v_BHMC)
    if not inputs.k_BHMC.numel():
        return torch.empty_like(keys[0]), torch.empty_like(keys[1])
    queries = _queries_of_keys(inputs)
    tiles, rows = _blocks(inputs, queries)
    most = cdiv(inputs.q_BHTC.shape[2], LEAST_QUERIES)
    parts = max(1, min(PROGRAMS // (tiles * rows), most))
    dtype = inputs.k_BHMC.dtype if parts == 1 else torch.float32
    outs = [x.new_empty((parts, *x.shape), dtype=dtype) for x in keys]
    key_gradient_kernel[(tiles, rows, parts)](
        *inputs.operands, *queries, *given, *outs, *inputs.numbers, **inputs.named
    )
    grad_k, grad_v = (out[0] if parts == 1 else out.sum(0).to(inputs.k_BHMC.dtype) for out in outs)
    return grad_k, grad_v


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
    precisions: tuple[dict[str, int | str], ...] = (
        {"PRECISION": "tf32", "BC": 128, **TILES},
        {"PRECISION": "ieee", "BC": 128, **WIDE_TILES},
    )
    return [
        (kernel, {**named, **more})
        for named in precisions
        for kernel, more in (
            *((forward_kernel, {"MORE": more}) for more in (False, True)),
            *((query_gradient_kernel, {"MORE": more, "LSE": False}) for more in (False, True)),
            (key_gradient_kernel, {}),
        )
    ]
