"""Which implementation of multi-resolution attention runs, and why."""

from ..route import Machine, Route, without_triton

# The largest head whose tiles fit a block's registers and shared memory.
LARGEST_HEAD = 128


def route_mra(machine: Machine, *, head_size: int, dtype: str) -> Route:
    """`torch`: chunks in plain PyTorch. `triton`: a pass each for the window and every level, scores on chip."""
    if (plain := without_triton(machine, dtype)) is not None:
        return plain
    if head_size > LARGEST_HEAD:
        return Route(implementation="torch", reason=f"wanted heads of at most {LARGEST_HEAD}, found {head_size}")
    return Route(implementation="triton", reason="scores stay on chip; the window and each level are one pass each")
