"""Launches of one token's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: D width, O outputs, H heads, C head size, W taps, E experts, r selector rank, J weights of an edge, M hidden
channels of a subnet, k chosen experts, P parts of the inputs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from ..bspline import SplineGrid
from ..route import machine_of
from .gates import Gates
from .kernel_triton import ada_kernel, enter_kernel, leave_kernel, linear_kernel, turn_kernel, view_kernel

# Numbers of a row at once.
ROW = 4096
# The fastest in sum of those tried on an H100 in bfloat16, each with weights that no cache holds: products of 12288 x
# 4096, 4096 x 4096, 6144 x 2048 and 2048 x 2048 (8 tried), groves of 4096 to 112 and 2048 to 64 with 2 of 16 subnets
# (9 and 8), attention with 32 heads of 128 and 16 (3).
LINEAR: Mapping[str, int] = {"BO": 16, "BI": 512, "num_warps": 4}
SMALL_LINEAR: Mapping[str, int] = {"BO": 4, "BI": 1024, "num_warps": 4}
# Fewer outputs than this leave multiprocessors without a tile of LINEAR.
SMALL = 4096
VIEW: Mapping[str, int] = {"num_warps": 4}
ENTER: Mapping[str, int] = {"BI": 128, "BO": 16, "num_warps": 4}
WIDE_ENTER: Mapping[str, int] = {"BI": 256, "BO": 32, "num_warps": 8}
LEAVE: Mapping[str, int] = {"num_warps": 4}
ADA: Mapping[str, int] = {"num_warps": 8}
TURN: Mapping[str, int] = {"num_warps": 1}
# A grove's inputs are cut into so many parts at most; from so many on tiles are wide.
PARTS, WIDE = 16, 4096
# A grove's second layer: so many inputs of a subnet at once at most, and edges of a program.
INPUTS, EDGES = 128, 4096


def linear(x_D: Tensor, gain_D: Tensor | None, weight_OD: Tensor, added_O: Tensor | None, epsilon: float) -> Tensor:
    """(O,) in the weight's dtype: weight times x, scaled to a root mean square of 1 and by the gain; plus `added`."""
    outputs, inputs = weight_OD.shape
    out_O = weight_OD.new_empty(outputs)
    tiles = SMALL_LINEAR if outputs < SMALL else LINEAR
    linear_kernel[(cdiv(outputs, tiles["BO"]),)](
        x_D, x_D if gain_D is None else gain_D, weight_OD, x_D if added_O is None else added_O, out_O,
        inputs, outputs, epsilon, NORMED=gain_D is not None, ADDED=added_O is not None, **_early(x_D), **tiles,
    )  # fmt: skip
    return out_O


def grove(
    x_D: Tensor,
    gain_D: Tensor,
    gates: Gates,
    enter_EJDM: Tensor,
    leave_EJMD: Tensor,
    grid: SplineGrid,
    epsilon: float,
) -> Tensor:
    """(D,): x plus what the chosen subnets of edges make of it."""
    experts, rank, width = gates.selector_ErD.shape
    hidden = enter_EJDM.shape[3]
    seen_S, square_S = (x_D.new_empty(experts * (rank + 1), dtype=torch.float32) for _ in range(2))
    factor = x_D.new_empty((), dtype=torch.float32)
    view_kernel[(experts * (rank + 1),)](
        x_D, gain_D, gates.selector_ErD, gates.gate_ED, seen_S, square_S, factor,
        width, experts * rank, epsilon, BI=min(ROW, next_power_of_2(width)), **_early(x_D), **VIEW,
    )  # fmt: skip
    tiles = _enter_tiles(width)
    each = cdiv(cdiv(width, PARTS), tiles["BI"]) * tiles["BI"]
    parts, active = cdiv(width, each), gates.active
    part_kPM, share_k = (x_D.new_empty(shape, dtype=torch.float32) for shape in ((active, parts, hidden), (active,)))
    expert_k = x_D.new_empty(active, dtype=torch.int64)
    places = (width * hidden, grid.limit, grid.cells_per_unit)
    enter_kernel[(cdiv(hidden, tiles["BO"]), parts, active)](
        x_D, gain_D, factor, enter_EJDM, part_kPM, expert_k, share_k, seen_S, square_S, gates.bias_E, gates.ticks_E,
        gates.rate, experts, rank, gates.least, width, hidden, each, *places,
        ACTIVE=active, EXPERTS=next_power_of_2(experts), RANK=next_power_of_2(rank), CELLS=grid.cells,
        **_early(x_D), **tiles,
    )  # fmt: skip
    out_D, tiles = torch.empty_like(x_D), _leave_tiles(hidden, active)
    leave_kernel[(cdiv(width, tiles["BO"]),)](
        part_kPM, leave_EJMD, x_D, out_D, expert_k, share_k, parts, hidden, width, *places, epsilon,
        ACTIVE=active, CELLS=grid.cells, PARTS=next_power_of_2(parts),
        **_early(x_D), **tiles,
    )  # fmt: skip
    return out_D


def _enter_tiles(width: int) -> Mapping[str, int]:
    return WIDE_ENTER if width >= WIDE else ENTER


def _leave_tiles(hidden: int, active: int) -> dict[str, int]:
    inputs, choices = min(INPUTS, next_power_of_2(hidden)), next_power_of_2(active)
    return {**LEAVE, "CHOICES": choices, "BI": inputs, "BO": max(16, min(32, EDGES // (choices * inputs)))}


def ada(
    qkv_D: Tensor,
    tap_logits_HCW: Tensor,
    position_B: Tensor,
    sum_BHCC: Tensor,
    tail_BHWC: Tensor,
    gain_C: Tensor,
    decay: tuple[float, float],
    epsilon: float,
) -> Tensor:
    """(D,) of queries, keys and values (3 D,); the state is written over. Heads forget 2^-(decay[0] + decay[1] h)."""
    heads, size, taps = tap_logits_HCW.shape
    out_D = qkv_D.new_empty(heads * size)
    ada_kernel[(heads,)](
        qkv_D, tap_logits_HCW, position_B, sum_BHCC, tail_BHWC, gain_C, out_D,
        heads, size**-0.5, epsilon, *decay, SIZE=size, TAPS=taps,
        BC=next_power_of_2(size), BW=next_power_of_2(taps),
        **_early(qkv_D), **ADA,
    )  # fmt: skip
    return out_D


def turn(
    qkv_D: Tensor,
    gains: tuple[Tensor, Tensor] | None,
    turns: tuple[Tensor, Tensor],
    position_B: Tensor,
    key_BHSC: Tensor,
    value_BHSC: Tensor,
    epsilon: float,
) -> Tensor:
    """(H, C) queries of (3 D,), scaled with gains and turned; keys and values go to their slot of the caches."""
    _, heads, slots, size = key_BHSC.shape
    q_HC = qkv_D.new_empty((heads, size))
    cos, sin = (turn.contiguous() for turn in turns)
    turn_kernel[(heads,)](
        qkv_D, *(gains or (qkv_D, qkv_D)), cos, sin, position_B, q_HC, key_BHSC, value_BHSC,
        heads, slots, size, epsilon, NORMED=gains is not None, BP=next_power_of_2(size // 2), **_early(qkv_D), **TURN,
    )  # fmt: skip
    return q_HC


def _early(x: Tensor) -> dict[str, bool]:
    """Whether kernels begin while those before them end, which GPUs of compute capability 9.0 can."""
    can = x.is_cuda and machine_of(x.device).capability >= (9, 0)  # type: ignore[operator]
    return {"EARLY": True, "launch_pdl": True} if can else {"EARLY": False}


def compilations() -> list[tuple[Any, dict[str, Any]]]:
    """Each kernel with the constants and options of launches for a width of 4096."""
    choice = {"ACTIVE": 2, "CELLS": 5, "EARLY": False}
    ways = [{"NORMED": is_first, "ADDED": not is_first, "EARLY": False} for is_first in (True, False)]
    return [
        *((linear_kernel, {**way, **tiles}) for way in ways for tiles in (LINEAR, SMALL_LINEAR)),
        (view_kernel, {"EARLY": False, "BI": ROW, **VIEW}),
        *((enter_kernel, {**choice, "EXPERTS": 16, "RANK": 8, **tiles}) for tiles in (ENTER, WIDE_ENTER)),
        (leave_kernel, {**choice, "PARTS": PARTS, **_leave_tiles(112, 2)}),
        (ada_kernel, {"SIZE": 128, "TAPS": 4, "EARLY": False, "BC": 128, "BW": 4, **ADA}),
        (turn_kernel, {"NORMED": True, "EARLY": False, "BP": 64, **TURN}),
    ]
