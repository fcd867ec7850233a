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
