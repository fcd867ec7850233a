"""Which implementation of attention over a cache runs, and why."""

from ..route import Machine, Route, without_triton


def route_cached_attention(machine: Machine, *, dtype: str) -> Route:
    """`torch`: PyTorch's own, with a mask. `triton`: the slots of a head side by side, those filled alone."""
    kernels = Route(implementation="triton", reason="a head's slots are read side by side, and none that is not filled")
    return without_triton(machine, dtype) or kernels
