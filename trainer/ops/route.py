"""Which implementation of an op runs, and why: what the ops' own routing rules need, and what `train explain` prints.

An op's folder has the rule itself, a function from a Machine and the sizes to a Route. It knows no tensors, so that
the command line can ask for machines that are not here.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import torch

from .cuda_build import without_compiler

__all__ = ["Machine", "Route", "dtype_name", "machine_of", "without_triton"]

# What the kernels were compiled and tested with; torch brings one of these with its CUDA build.
LEAST_TRITON = (3, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a routing rule may ask of the device and of the software beside it."""

    device: str
    """`cpu` or `cuda`, as torch calls a device's type."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability, (9, 0) for Hopper; None without a GPU."""
    triton: tuple[int, ...] | None = None
    """The version that can be imported; None where there is none."""
    without_compiler: str | None = None
    """Why CUDA kernels cannot be built there; None where they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An op's implementation, by the name that its README gives it, and the reason in half a line."""

    implementation: str
    reason: str


@cache
def machine_of(device: torch.device) -> Machine:
    """The machine that a tensor on `device` is on. Nothing here changes while a process lives."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    why = without_compiler() if capability else None
    return Machine(device=device.type, capability=capability, triton=_triton_version(), without_compiler=why)


def dtype_name(tensor: torch.Tensor) -> str:
    """What routing rules call a tensor's dtype, such as `bfloat16`."""
    return str(tensor.dtype).removeprefix("torch.")


def without_triton(machine: Machine, dtype: str) -> Route | None:
    """The route to plain PyTorch where Triton kernels do not run, with the reason; None where they can.

    Args:
        dtype: torch's name of what the op works on, such as `bfloat16`.
    """
    if machine.device != "cuda":
        return Route(implementation="torch", reason=f"the device is {machine.device}; Triton kernels need a GPU")
    if machine.capability is None or machine.capability < (8, 0):
        return Route(implementation="torch", reason="Triton kernels here need compute capability 8.0")
    if machine.triton is None or machine.triton < LEAST_TRITON:
        found = ".".join(map(str, machine.triton)) if machine.triton else "none"
        return Route(implementation="torch", reason=f"wanted Triton {LEAST_TRITON[0]}.{LEAST_TRITON[1]}, found {found}")
    if dtype == "float64":
        return Route(implementation="torch", reason="float64 is for references")
    return None


def _triton_version() -> tuple[int, ...] | None:
    if importlib.util.find_spec("triton") is None:
        return None
    return tuple(int(part) for part in metadata.version("triton").split(".")[:2])
