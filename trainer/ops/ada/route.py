"""Which implementation of diffusion attention runs, and why."""

from ..route import Machine, Route, without_triton

__all__ = ["LARGEST_HEAD", "route_ada"]

# The largest head whose states fit a block's registers and shared memory.
LARGEST_HEAD = 128


def route_ada(machine: Machine, *, head_size: int, dtype: str) -> Route:
    """`torch`: chunks in plain PyTorch. `triton`: kernels that keep scores and diffused keys on chip."""
    if (plain := without_triton(machine, dtype)) is not None:
        return plain
    if head_size > LARGEST_HEAD:
        return Route(implementation="torch", reason=f"wanted heads of at most {LARGEST_HEAD}, found {head_size}")
    return Route(implementation="triton", reason="scores and diffused keys stay on chip; chunks run side by side")
