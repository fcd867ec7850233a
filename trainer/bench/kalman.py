"""The Kalman filter's benchmark: ours as it is routed, beside its plain PyTorch and a sum of the same numbers.

A cumulative sum is no filter: it reads and writes what the simplest scan must. Letters as in ops/kalman.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..ops.kalman import kalman_filter
from ..ops.kalman.plain import plain_backward, plain_forward
from ..ops.kalman.reference import kalman_reference
from .group import Group, Work, relative_error, require_right
from .timing import measure, measure_gradients

CHECKED_TOKENS, CHECKED_CHANNELS = 300, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All tokens, in sequences of so many."""

    tokens: int
    length: int
    channels: int

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"sequences of {self.length:,}, {self.channels:,} channels"


CASES = [Case(tokens=131072, length=length, channels=1024) for length in (1024, 16384)]


def names(device: str) -> list[str]:
    """The ways, the baseline first."""
    return ["cumulative sum", "ours", "plain PyTorch"]


def make_inputs(
    sequences: int, length: int, channels: int, device: str, dtype: torch.dtype
) -> tuple[list[Tensor], Tensor]:
    """Observations, their noise and the drift; places with a second document from the middle on."""
    generator = torch.Generator(device).manual_seed(1)
    shape = (sequences, length, channels)
    observed, noise = (torch.randn(shape, generator=generator, device=device) for _ in range(2))
    drift = torch.rand(channels, generator=generator, device=device)
    position_BT = torch.arange(length, device=device).expand(sequences, -1) % max(1, length // 2 + 1)
    return [observed.to(dtype), noise.exp().to(dtype), drift.to(dtype)], position_BT.contiguous()


def check(device: str, dtype: torch.dtype) -> dict[str, float]:
    """The errors of values and every gradient against the recursion in float64, over a small case."""
    floats, position_BT = make_inputs(2, CHECKED_TOKENS, CHECKED_CHANNELS, device, dtype)
    # Every kind of number can hold it.
    grad = torch.randn(floats[0].shape, generator=torch.Generator(device).manual_seed(2), device=device).bfloat16()

    def results(call: Callable[..., Tensor], given: list[Tensor], position_BT: Tensor, grad: Tensor) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in given]
        out = call(*leaves, position_BT)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]

    found = results(ours, floats, position_BT, grad)
    wanted = results(kalman_reference, [x.double().cpu() for x in floats], position_BT.cpu(), grad.cpu())
    named = zip(("estimate", "dobserved", "dnoise", "ddrift"), found, wanted, strict=True)
    return {name: relative_error(x.cpu(), y) for name, x, y in named}


def ours(observed: Tensor, noise: Tensor, drift: Tensor, position_BT: Tensor) -> Tensor:
    """Estimates alone."""
    return kalman_filter(observed, noise, drift, position_BT)[0]


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way. Raises RuntimeError where ours is wrong."""
    errors = check(device, dtype) if name == "ours" else {}
    require_right(errors, dtype)
    length = min(case.length, case.tokens)
    floats, position_BT = make_inputs(case.tokens // length, length, case.channels, device, dtype)
    if name == "plain PyTorch":
        return _plain(floats, position_BT)
    leaves = [x.requires_grad_() for x in floats]
    observed, noise, drift = leaves
    if name == "cumulative sum":
        grad = torch.randn_like(floats[0])
        measured = measure_gradients(lambda: observed.cumsum(1, dtype=torch.float32).to(dtype), [observed], grad)
    else:
        grad = torch.randn_like(floats[0], dtype=torch.float32)
        measured = measure_gradients(lambda: ours(observed, noise, drift, position_BT), leaves, grad)
    return {**measured, "errors": errors}


def _plain(floats: list[Tensor], position_BT: Tensor) -> dict[str, Any]:
    """What runs where there are no kernels, called by name."""
    observed, noise, drift = floats
    inputs = (observed, noise, drift, position_BT)
    grad = torch.randn_like(observed, dtype=torch.float32)
    estimate, variance = plain_forward(*inputs)
    forward = measure(lambda: plain_forward(*inputs))
    backward = measure(lambda: plain_backward(grad, *inputs, estimate, variance))
    return {"forward_ms": forward.ms, "both_ms": forward.ms + backward.ms, "extra_mb": None, "errors": {}}


def work(case: Case) -> Work:
    """Observations, noise and estimates; with gradients the estimates', and those of the other two."""
    tensor = case.tokens * case.channels * 2
    return Work(forward_bytes=3 * tensor, both_bytes=6 * tensor)


GROUP = Group(
    name="kalman",
    title="the Kalman filter, beside a cumulative sum of the same observations",
    cases=CASES,
    ways=names,
    work=work,
    run=run_way,
)
