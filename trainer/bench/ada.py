"""Arnold diffusion attention's benchmark: the same number of tokens in ever longer sequences.

Beside it causal softmax attention, which is quadratic, and linear attention in chunks without decay and diffusion:
other functions, of the same inputs and outputs. Letters as in ops/ada.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.ada import ada
from ..ops.ada.reference import ada_reference
from .group import Group, Work, relative_error, require_right
from .timing import measure_gradients

HEADS, SIZE, TAPS = 16, 64, 4
CHUNK = 64
# What is checked: an odd number of tokens, with a border of documents among them.
CHECKED_TOKENS, CHECKED_HEADS = 300, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All tokens, in sequences of so many."""

    tokens: int
    length: int
    heads: int = HEADS

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"sequences of {self.length:,}"


CASES = [Case(tokens=131072, length=length) for length in (1024, 4096, 16384, 131072)]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Way = Callable[..., Tensor]
"""From queries, keys, values, taps, log decays and places to outputs."""


def ours(q: Tensor, k: Tensor, v: Tensor, taps: Tensor, decay: Tensor, position: Tensor) -> Tensor:
    """The op, as it is routed."""
    return ada(q, k, v, taps, decay, position, CHUNK)[0]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
    """PyTorch's causal attention, by whichever of its kernels it takes."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *_: Tensor) -> Tensor:
    """Linear attention in chunks: no decay, no diffusion, states summed in float32."""
    batch, heads, tokens, size = q.shape
    shape = (batch, heads, -1, math.gcd(CHUNK, tokens), size)
    q_BHNLC, k_BHNLC, v_BHNLC = (x.reshape(shape) for x in (F.silu(q), F.silu(k), v))
    score = (q_BHNLC @ k_BHNLC.transpose(3, 4)).tril()
    added = (k_BHNLC.transpose(3, 4) @ v_BHNLC).float()
    before = (added.cumsum(2) - added).to(q.dtype)
    out_BHTC: Tensor = ((score @ v_BHNLC + q_BHNLC @ before) * size**-0.5).flatten(2, 3)
    return out_BHTC


OTHERS: dict[str, Way] = {"softmax attention": softmax_attention, "linear attention": linear_attention}


def names(device: str) -> list[str]:
    """The ways on a device, the baseline first."""
    own = [*OTHERS, "ours"]
    return [*own, "linear attention, compiled", "ours, compiled"] if device == "cuda" else own


def make_inputs(sequences: int, length: int, heads: int, device: str, dtype: torch.dtype, borders: bool) -> Inputs:
    """Queries, keys, values; taps that add up to one; decays of each token; one document a sequence, or two."""
    generator = torch.Generator(device).manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    q, k, v = (draw(sequences, heads, length, SIZE).to(dtype) for _ in range(3))
    taps = draw(heads, SIZE, TAPS).softmax(-1).to(dtype)
    decay = F.logsigmoid(draw(sequences, heads, length) + 4)
    position = torch.arange(length, device=device).expand(sequences, -1)
    if borders:
        position = torch.where(position < length // 3, position, position - length // 3)
    return q, k, v, taps, decay, position


def gradients(way: Way, inputs: Inputs, is_ours: bool) -> dict[str, Tensor]:
    """The output and the gradients of all that has one, for a gradient of the output that is a fixed random one."""
    *floats, position = inputs
    wanted = [x.detach().requires_grad_() for x in floats]
    out = way(*wanted, position)
    grad = torch.randn(out.shape, generator=torch.Generator(out.device).manual_seed(2), device=out.device)
    used = wanted if is_ours else wanted[:3]
    found = torch.autograd.grad(out, used, grad.to(out.dtype))
    return {"o": out.detach(), **dict(zip(("dq", "dk", "dv", "dtaps", "ddecay"), found, strict=False))}


def check(way: Way, device: str, dtype: torch.dtype) -> dict[str, float]:
    """The errors of values and every gradient against float64, over a small case with documents."""
    inputs = make_inputs(2, CHECKED_TOKENS, CHECKED_HEADS, device, dtype, borders=True)
    wide: Any = [x.double() if x.is_floating_point() else x for x in (each.cpu() for each in inputs)]
    found = gradients(way, inputs, is_ours=True)
    grad = torch.randn(found["o"].shape, generator=torch.Generator(device).manual_seed(2), device=device)
    wanted = [x.requires_grad_() for x in wide[:-1]]
    q, k, v, taps, decay = wanted
    out = ada_reference(q, k, v, taps, decay, wide[-1])
    exact = torch.autograd.grad(out, wanted, grad.to(dtype).double().cpu())
    results = dict(zip(found, (out.detach(), *exact), strict=True))
    return {name: relative_error(found[name].cpu(), results[name]) for name in found}


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way. Raises RuntimeError where ours is wrong."""
    plain, is_ours = name.removesuffix(", compiled"), name.startswith("ours")
    way: Way = ours if is_ours else OTHERS[plain]
    if name != plain:
        way = torch.compile(way, dynamic=False)
    errors = check(way, device, dtype) if is_ours else {}
    require_right(errors, dtype)
    length = min(case.length, case.tokens)
    inputs = make_inputs(case.tokens // length, length, case.heads, device, dtype, borders=False)
    *floats, position = inputs
    leaves = [x.detach().requires_grad_() for x in floats]
    used = leaves if is_ours else leaves[:3]
    grad = torch.randn_like(inputs[2])
    # As a graph: a model's host is ahead of its device.
    measured = measure_gradients(lambda: way(*leaves, position), used, grad, graph=True)
    return {**measured, "errors": errors}


def work(case: Case) -> Work:
    """Queries, keys, values and outputs; with gradients the output's, and those of the three."""
    tensor = case.tokens * case.heads * SIZE * 2
    return Work(forward_bytes=4 * tensor, both_bytes=8 * tensor)


GROUP = Group(
    name="ada",
    title="diffusion attention, beside causal softmax attention of the same shapes",
    cases=CASES,
    ways=names,
    work=work,
    run=run_way,
)
