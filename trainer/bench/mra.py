"""Multi-resolution attention's benchmark: the same number of tokens in ever longer sequences.

Beside it causal softmax attention, which meets every key: another function, of the same inputs and outputs. What pools
keys into blocks is the layer's (model/mra.py), and not timed. Letters as in ops/mra.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.mra import Resolutions, multi_resolution_attention
from ..ops.mra.reference import multi_resolution_reference
from .group import Group, Work, relative_error, require_right
from .timing import measure_gradients

HEADS, SIZE = 16, 64
# What is checked: an odd number of tokens, with a border of documents among them.
CHECKED_TOKENS, CHECKED_HEADS = 300, 2
# Each pass over a resolution rounds its output before they are put together.
PASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All tokens, in sequences of so many; a window and blocks near the root of that."""

    tokens: int
    length: int
    window: int
    heads: int = HEADS

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"sequences of {self.length:,}, window and blocks of {self.window}"


CASES = [
    Case(tokens=131072, length=length, window=window)
    for length, window in ((1024, 32), (4096, 64), (16384, 128), (131072, 256))
]
Inputs = tuple[list[Tensor], Tensor]


def names(device: str) -> list[str]:
    """The ways, the baseline first."""
    return ["softmax attention", "ours"]


def make_inputs(
    sequences: int, length: int, heads: int, window: int, device: str, dtype: torch.dtype, border: int
) -> Inputs:
    """Queries, keys, values, the blocks' keys and values, and places; a second document from `border` on."""
    generator = torch.Generator(device).manual_seed(1)
    counts = [length] * 3 + [length // window] * 2
    shapes = [(sequences, heads, count, SIZE) for count in counts]
    floats = [torch.randn(shape, generator=generator, device=device).to(dtype) for shape in shapes]
    position_BT = torch.arange(length, device=device).expand(sequences, -1)
    return floats, torch.where(position_BT < border, position_BT, position_BT - border)


def attend(name: str, floats: list[Tensor], position_BT: Tensor, window: int) -> Tensor:
    """The outputs of a way."""
    q, k, v, key, value = floats
    if name == "softmax attention":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    call = multi_resolution_reference if name == "reference" else multi_resolution_attention
    return call(q, k, v, [(key, value)], position_BT, Resolutions(window=window, levels=(window,)))


def check(window: int, device: str, dtype: torch.dtype) -> dict[str, float]:
    """The errors of values and every gradient against float64, over a small case with two documents."""
    floats, position_BT = make_inputs(
        2, CHECKED_TOKENS, CHECKED_HEADS, window, device, dtype, border=CHECKED_TOKENS // 3
    )
    # Every kind of number can hold it.
    grad = torch.randn(floats[0].shape, generator=torch.Generator(device).manual_seed(2), device=device).bfloat16()

    def results(name: str, given: list[Tensor], position_BT: Tensor, grad: Tensor) -> list[Tensor]:
        leaves = [x.detach().requires_grad_() for x in given]
        out = attend(name, leaves, position_BT, window)
        return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]

    found = results("ours", floats, position_BT, grad)
    wanted = results("reference", [x.double().cpu() for x in floats], position_BT.cpu(), grad.cpu())
    names = ("o", "dq", "dk", "dv", "dblock keys", "dblock values")
    return {name: relative_error(x.cpu(), y) for name, x, y in zip(names, found, wanted, strict=True)}


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way. Raises RuntimeError where ours is wrong."""
    errors = {}
    if name == "ours":
        errors = check(min(case.window, CHECKED_TOKENS // 6), device, dtype)
        require_right(errors, dtype, ops=PASSES)
    length = min(case.length, case.tokens)
    window = min(case.window, length)
    floats, position_BT = make_inputs(case.tokens // length, length, case.heads, window, device, dtype, border=length)
    leaves = [x.requires_grad_() for x in floats]
    used = leaves if name == "ours" else leaves[:3]
    grad = torch.randn_like(floats[0])
    return {**measure_gradients(lambda: attend(name, leaves, position_BT, window), used, grad), "errors": errors}


def work(case: Case) -> Work:
    """As ada.work; and a token's products with its window and, on the whole, half of the blocks."""
    tensor = case.tokens * case.heads * SIZE * 2
    seen = case.window + case.length / case.window / 2
    forward = 4.0 * case.tokens * case.heads * SIZE * seen
    return Work(forward_flops=forward, both_flops=3.5 * forward, forward_bytes=4 * tensor, both_bytes=8 * tensor)


GROUP = Group(
    name="mra",
    title="multi-resolution attention, beside causal softmax attention of the same shapes",
    cases=CASES,
    ways=names,
    work=work,
    run=run_way,
)
