"""The Arnold layer: blocks as an invertible map of two streams, whose activations are computed again from the output.

    y1 = x1 + f(x2)        f a token mixer, g a channel mixer: two shears of determinant one, a learnable cat map.
    y2 = x2 + g(y1)        Inverse: x2 = y2 - g(y1), x1 = y1 - f(x2).

Letters: B batch, T tokens, D width.
Source: MODEL.md section 7; the recomputation is that of reversible residual networks, arXiv 1707.04585.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .frame import Frame

Pair = tuple[Tensor, Tensor]


class Shears(Protocol):
    """What a block offers: f and g, without randomness, because each is computed twice."""

    def mix_tokens(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """f, (B, T, D) to the same."""
        ...

    def mix_channels(self, x: Tensor) -> Tensor:
        """g, (..., D) to the same."""
        ...


class ReversibleStack(nn.ModuleList):
    """Blocks (Shears that are modules) run reversibly; the backward pass needs their last output alone.

    Args:
        blocks: the blocks, first to last.
        order: channels in their new order, applied to both streams after each block; None leaves them.
        keep_every: the streams before every so many blocks are stored as well, which ends the growth of rounding
            errors, for memory; 0 stores none. Each inversion adds the rounding of one addition to each stream.
    """

    order_D: Tensor | None
    back_D: Tensor | None
    home_D: Tensor | None

    def __init__(self, blocks: Iterable[nn.Module], order: Sequence[int] | None = None, keep_every: int = 0) -> None:
        super().__init__(blocks)
        # Buffers, not lists: a list of indices would be copied to the device at every use, and waited for.
        order_D = None if order is None else torch.tensor(order)
        self.register_buffer("order_D", order_D, persistent=False)
        self.register_buffer("back_D", None if order_D is None else order_D.argsort(), persistent=False)
        self.register_buffer("home_D", None if order_D is None else self._home(order_D), persistent=False)
        self.keep_every = keep_every or max(1, len(self))

    def forward(self, x1: Tensor, x2: Tensor, frame: Frame, shared: Sequence[Tensor] = ()) -> Pair:
        """Both streams after the last block, (B, T, D) each.

        Args:
            x1, x2: float32 or float64, whatever the blocks' weights are in.
            shared: parameters that blocks use and that are not the stack's own.
        """
        for stream in (x1, x2):
            if stream.dtype not in (torch.float32, torch.float64):
                raise TypeError(f"wanted streams in float32 or float64, found {stream.dtype}")
        # Given to the function, so that autograd, and whoever hooks on it, sees the parameters used.
        parameters = [*self.parameters(), *shared]
        for first in range(0, len(self), self.keep_every):
            part = range(first, min(first + self.keep_every, len(self)))
            x1, x2 = _Reversible.apply(self, part, frame, x1, x2, *parameters)  # type: ignore[no-untyped-call]
        return x1, x2

    def _home(self, order_D: Tensor) -> Tensor:
        """Where each channel stands after all blocks: what takes them back to where they began."""
        place_D = torch.arange(len(order_D))
        for _ in self:
            place_D = place_D[order_D]
        return place_D.argsort()

    def at_home(self, x: Tensor) -> Tensor:
        """A stream after the last block with its channels as they were before the first: the output layer is tied."""
        return x if self.home_D is None else x[..., self.home_D]

    def couple(self, block: Shears, x1: Tensor, x2: Tensor, mix_tokens: Callable[[Tensor], Tensor]) -> Pair:
        """The streams after one block, whose f is `mix_tokens`."""
        y1 = x1 + mix_tokens(x2).to(x1.dtype)
        y2 = x2 + block.mix_channels(y1).to(x2.dtype)
        return (y1, y2) if self.order_D is None else (y1[..., self.order_D], y2[..., self.order_D])

    def invert(self, block: Shears, y1: Tensor, y2: Tensor, frame: Frame) -> Pair:
        """The streams before a block, to rounding."""
        y1, y2 = self.in_order(y1, y2)
        x2 = y2 - block.mix_channels(y1).to(y2.dtype)
        return y1 - block.mix_tokens(x2, frame).to(y1.dtype), x2

    def in_order(self, y1: Tensor, y2: Tensor) -> Pair:
        """Both streams, or their gradients, with the channels that a block's output was reordered from."""
        return (y1, y2) if self.back_D is None else (y1[..., self.back_D], y2[..., self.back_D])


class _Reversible(torch.autograd.Function):
    """Some blocks: forward without a graph; backward takes one shear back after the other and differentiates it alone.

    Each f and g is computed once more, and that once gives both the value to subtract and the gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, stack: ReversibleStack, part: range, frame: Frame, x1: Tensor, x2: Tensor, *parameters: Tensor
    ) -> Pair:
        ctx.stack, ctx.part, ctx.frame = stack, part, frame
        for number in part:
            x1, x2 = _run(stack, stack[number], x1, x2, frame)
        ctx.save_for_backward(x1, x2, *parameters)
        return x1, x2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        y1, y2, *parameters = ctx.saved_tensors
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        sums: list[Tensor | None] = [None] * len(wanted)
        stack, frame = ctx.stack, ctx.frame
        for number in reversed(ctx.part):
            block = stack[number]
            y1, y2 = stack.in_order(y1, y2)
            slope1, slope2 = stack.in_order(*slopes)
            added, more, from_g = _retrace(block.mix_channels, y1, slope2, wanted)
            y2, slope1 = y2 - added, slope1 + more
            added, more, from_f = _retrace(partial(block.mix_tokens, frame=frame), y2, slope1, wanted)
            y1, slopes = y1 - added, (slope1, slope2 + more)
            sums = [_sum(one, _sum(other, third)) for one, other, third in zip(sums, from_g, from_f, strict=True)]
        given = iter(sums)
        rows = [next(given) if parameter.requires_grad else None for parameter in parameters]
        return None, None, None, *slopes, *rows


def cat_map_order(width: int, a: int = 1, b: int = 1) -> list[int]:
    """New order of channels by Arnold's cat map: (i, j) of a square goes to (i + a j, b i + (1 + a b) j).

    Sums are modulo the side s of the largest square, s * s <= D; channels beyond it stay. The map has determinant one,
    so it is a permutation for all a and b.
    """
    side = int(width**0.5)
    order = list(range(width))
    for index in range(side * side):
        i, j = divmod(index, side)
        order[(i + a * j) % side * side + (b * i + (1 + a * b) * j) % side] = index
    return order


def _run(stack: ReversibleStack, block: Any, x1: Tensor, x2: Tensor, frame: Frame) -> Pair:
    return stack.couple(block, x1, x2, lambda x: block.mix_tokens(x, frame))


def _retrace(
    mix: Callable[[Tensor], Tensor], x: Tensor, slope: Tensor, wanted: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
    """What `mix` adds for x, and through it the gradients of x and of the parameters."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        added = mix(x).to(x.dtype)
    on_x, *found = torch.autograd.grad(added, (x, *wanted), slope, allow_unused=True)
    return added.detach(), torch.zeros_like(x) if on_x is None else on_x, found


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
