"""Launches of the Triton kernels of attention over a cache. Imported only where they run.

Letters: B rows, H heads, C channels of queries and keys, V of values, S slots, P parts of the slots.
"""

from collections.abc import Mapping
from math import e, log2
from typing import Any

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from .kernel_triton import part_kernel, whole_kernel

# Of 22 the fastest on an H100 after 32,600 places, with 32 heads of 128 and with 16: 2.9 and 2.8 TB/s. A tile of keys
# is 16 KiB at two bytes.
TILES: Mapping[str, int] = {"BS": 64, "STAGES": 2, "num_warps": 4}
# Programs that a pass should have, and the fewest slots that are worth one.
PROGRAMS = 528
LEAST_SLOTS = 128
LOG2_E = log2(e)


def cached_attention(q_BHC: Tensor, key_BHSC: Tensor, value_BHSV: Tensor, position_B: Tensor, scale: float) -> Tensor:
    """(B, H, V) of contiguous queries and caches."""
    (rows, heads, slots, channels), width = key_BHSC.shape, value_BHSV.shape[3]
    out_BHV = q_BHC.new_empty((rows, heads, width))
    if not out_BHV.numel():
        return out_BHV
    parts = max(1, min(PROGRAMS // (rows * heads), slots // LEAST_SLOTS))
    each = cdiv(cdiv(slots, parts), TILES["BS"]) * TILES["BS"]
    parts = cdiv(slots, each)
    sum_BHPV = q_BHC.new_empty((rows, heads, parts, width), dtype=torch.float32)
    size_BHP, most_BHP = (q_BHC.new_empty((rows, heads, parts), dtype=torch.float32) for _ in range(2))
    blocks = {"BC": next_power_of_2(channels), "BV": next_power_of_2(width)}
    part_kernel[(rows * heads, parts)](
        q_BHC, key_BHSC, value_BHSV, position_B, sum_BHPV, size_BHP, most_BHP,
        heads, slots, each, channels, width, scale * LOG2_E, **blocks, **TILES,
    )  # fmt: skip
    whole_kernel[(rows * heads,)](
        sum_BHPV, size_BHP, most_BHP, out_BHV, parts, width, PARTS=next_power_of_2(parts), BV=blocks["BV"]
    )
    return out_BHV


def compilations() -> list[tuple[Any, dict[str, int | str]]]:
    """Each kernel with the constants and options of a launch with 128 channels."""
    return [(part_kernel, {"BC": 128, "BV": 128, **TILES}), (whole_kernel, {"PARTS": 32, "BV": 128})]
