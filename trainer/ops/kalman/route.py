"""Which implementation of the Kalman filter runs, and why."""

from ..route import Machine, Route, without_triton

__all__ = ["route_kalman"]


def route_kalman(machine: Machine, *, dtype: str) -> Route:
    """`torch`: scans in rounds, plain PyTorch. `triton`: kernels that read each value a few times. By torch's dtype."""
    several = Route(
        implementation="triton", reason="each value is read a few times, where rounds read it log2(T) times"
    )
    return without_triton(machine, dtype) or several
