"""What a benchmark of ops is made of: groups of cases, each case done in several ways, one of which is the baseline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

# The relative error, in the Frobenius norm against float64, beyond which a time says nothing.
BOUNDS = {torch.bfloat16: 5e-3, torch.float32: 1e-5}


class Case(Protocol):
    """One size of an op; frozen, and without tensors."""

    @property
    def name(self) -> str:
        """As tables call it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The least that any way to a case has to do, forward and then forward and backward together."""

    forward_flops: float = 0.0
    """On tensor cores; what sparse ones do in half the time counts half."""
    both_flops: float = 0.0
    forward_bytes: float = 0.0
    """Each input read once, each result written once."""
    both_bytes: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What this GPU reached when it was asked for nothing else."""

    flops_per_s: float
    """Of a product of 8,192 x 8,192 matrices in bfloat16."""
    bytes_per_s: float
    """Read and written by a copy of 2 GiB."""

    def limit(self, work: Work) -> dict[str, Any]:
        """The row of the limit: the larger of arithmetic's time and memory's."""
        forward_s = max(work.forward_flops / self.flops_per_s, work.forward_bytes / self.bytes_per_s)
        both_s = max(work.both_flops / self.flops_per_s, work.both_bytes / self.bytes_per_s)
        return {"forward_ms": forward_s * 1e3, "both_ms": both_s * 1e3 or None, "extra_mb": None, "errors": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """An op's benchmark."""

    name: str
    title: str
    """What is measured, in a line."""
    cases: Sequence[Any]
    cpu_cases: Sequence[Any] | None = None
    """In place of these without a GPU, where fewer tokens would not be enough."""
    ways: Callable[[str], list[str]]
    """Names of the ways on a device (`cpu`, `cuda`); the first is the baseline of the ratios."""
    serves: Callable[[Any, str], bool] = lambda _case, _way: True
    """Whether a way is for such a case at all; one that is not has no row."""
    work: Callable[[Any], Work] | None = None
    """The least work of a case in bfloat16, from which its limit on a GPU follows; None where that is not told."""
    run: Callable[[Any, str, str, torch.dtype], Mapping[str, Any]]
    """The row of a case, way, device, dtype: forward_ms, both_ms, extra_mb, errors. RuntimeError where it is wrong.

    both_ms and extra_mb are None where there is no such number.
    """


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """||found - wanted|| / ||wanted||; NaN where there is one."""
    return float((found.double() - wanted).norm() / wanted.norm())


def require_right(errors: Mapping[str, float], dtype: torch.dtype, ops: int = 1) -> None:
    """Raise RuntimeError where an error is beyond its bound, or not a number.

    Args:
        ops: how many ops one after the other were compared, each of which rounds its result.
    """
    bound = BOUNDS[dtype] * ops
    # Written so that NaN fails too.
    if not all(error <= bound for error in errors.values()):
        found = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        raise RuntimeError(f"wanted errors of at most {bound:.3g}, found {found}")
