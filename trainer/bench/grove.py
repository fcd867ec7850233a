"""KalmaGrove's benchmark: a pair of edge layers of which each token uses one subnet's share, beside the whole pair.

`dense` has the same total parameters, and every token uses them all. `gemm` is the dense pair's products alone.
Letters as in model/grove.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.edge import NORM_EPSILON
from ..model.grove import Grove, KanSubnets
from ..ops.bspline import SplineGrid, edge_linear
from ..ops.grove.reference import grove_reference
from .group import Group, Work, relative_error, require_right
from .timing import measure, measure_gradients

GRID = SplineGrid(cells=5)
RANK = 8
# Every subnet for every token in float64: few tokens.
CHECKED_TOKENS = 128
# Two norms, two edge layers: in narrow numbers each rounds what the next one bends. In float32 one op's bound holds.
CHAIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A grove's sizes."""

    tokens: int
    width: int
    hidden: int
    experts: int
    active: int

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.active} of {self.experts}, {self.width} -> {self.hidden} -> {self.width} each"


CASES = [
    Case(tokens=16384, width=1024, hidden=256, experts=16, active=1),
    Case(tokens=16384, width=1024, hidden=1024, experts=16, active=1),
    Case(tokens=16384, width=1024, hidden=256, experts=32, active=2),
]


class DensePair(nn.Module):
    """Two edge layers, each of normalised inputs."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter_JIO = nn.Parameter(torch.randn(GRID.bases + 1, width, hidden) * width**-0.5)
        self.leave_JIO = nn.Parameter(torch.randn(GRID.bases + 1, hidden, width) * hidden**-0.5)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        for weight_JIO in (self.enter_JIO, self.leave_JIO):
            x_ND = edge_linear(F.rms_norm(x_ND, x_ND.shape[-1:], eps=NORM_EPSILON), weight_JIO, GRID)
        return x_ND


def make_grove(case: Case, device: str, dtype: torch.dtype) -> Grove:
    """As a model has it at its start, gates closed a little each in its own way."""
    subnets = KanSubnets(case.experts, case.width, case.hidden, GRID)
    grove = Grove(case.width, subnets, experts=case.experts, active=case.active, selector_rank=RANK)
    generator = torch.Generator().manual_seed(1)
    grove.start(generator, 1.0)
    with torch.no_grad():
        grove.gate_ED.normal_(0, case.width**-0.5, generator=generator)
    return grove.to(device, dtype)


def make_inputs(tokens: int, width: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs of N(0, 1) and a gradient."""
    generator = torch.Generator(device).manual_seed(2)
    x, grad = (torch.randn(tokens, width, generator=generator, device=device) for _ in range(2))
    return x.to(dtype), grad.to(dtype)


def names(device: str) -> list[str]:
    """The ways on a device, the baseline first."""
    return ["dense", "ours", "gemm"]


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way. Raises RuntimeError where ours is wrong."""
    x_ND, grad_ND = make_inputs(case.tokens, case.width, device, dtype)
    if name == "gemm":
        return _gemm(case, x_ND)
    ours = make_grove(case, device, dtype)
    errors = {}
    if name == "ours":
        require_right(check(make_grove(case, device, torch.float32), case, device, torch.float32), torch.float32)
        errors = check(ours, case, device, dtype)
        require_right(errors, dtype, ops=CHAIN)
    layer: nn.Module = ours
    if name == "dense":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            layer = DensePair(case.width, case.hidden * case.experts).to(device, dtype)
    leaf_ND = x_ND.requires_grad_()
    wanted = (leaf_ND, *layer.parameters())
    # Forty kernels of a few microseconds each: without a graph a grove is as slow as the host that starts them.
    return {**measure_gradients(lambda: layer(leaf_ND), wanted, grad_ND, graph=True), "errors": errors}


def check(grove: Grove, case: Case, device: str, dtype: torch.dtype) -> dict[str, float]:
    """The errors of values and gradients against every subnet for every token in float64, over few tokens."""
    x_ND, grad_ND = make_inputs(CHECKED_TOKENS, case.width, device, dtype)
    found = _results(grove, grove, x_ND, grad_ND)
    wide = make_grove(case, device, dtype).double()
    rows_E = torch.arange(case.experts, device=device, dtype=torch.int32)

    def run(expert: int, x: Tensor) -> Tensor:
        y: Tensor = wide.subnets(x, len(x) * (rows_E >= expert).int())
        return y

    def reference(x: Tensor) -> Tensor:
        gates = (wide.selector_ErD, wide.gate_ED, wide.gate_bias_E)
        return grove_reference(x, *gates, torch.zeros(case.experts, device=device), case.active, run)

    exact = _results(reference, wide, x_ND.double(), grad_ND.double())
    return {name: relative_error(found[name], exact[name]) for name in found}


def _results(layer: Callable[[Tensor], Tensor], of: Grove, x_ND: Tensor, grad_ND: Tensor) -> dict[str, Tensor]:
    x_ND = x_ND.detach().requires_grad_()
    y_ND = layer(x_ND)
    assert isinstance(of.subnets, KanSubnets)
    wanted = {"dx": x_ND, "denter": of.subnets.enter_EJIO, "dleave": of.subnets.leave_EJIO, "dgate": of.gate_ED}
    grads = torch.autograd.grad(y_ND, list(wanted.values()), grad_ND)
    return {"y": y_ND.detach(), **dict(zip(wanted, grads, strict=True))}


def _gemm(case: Case, x_ND: Tensor) -> dict[str, Any]:
    """The dense pair's six products by the vendor's library, with the features given."""
    hidden, features = case.hidden * case.experts, GRID.bases + 1

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=x_ND.device, dtype=x_ND.dtype)

    times = []
    for inputs, outputs in ((case.width, hidden), (hidden, case.width)):
        features_NF, weight_FO = draw(len(x_ND), features * inputs), draw(features * inputs, outputs)
        grad_NO = draw(len(x_ND), outputs)
        times.append(measure(lambda f=features_NF, w=weight_FO: f @ w, graph=True).ms)  # type: ignore[misc]
        backward = lambda f=features_NF, w=weight_FO, g=grad_NO: (g @ w.T, f.T @ g)  # noqa: E731
        times.append(measure(backward, graph=True).ms)
    return {"forward_ms": times[0] + times[2], "both_ms": sum(times), "extra_mb": None, "errors": {}}


def work(case: Case) -> Work:
    """The edge layers of the subnets that tokens use, as edge.work counts them, and all subnets' weights."""
    product = 2.0 * case.tokens * case.active * case.width * case.hidden * 2
    inside = case.tokens * case.width * 2
    weights = 2 * 9 * case.width * case.hidden * case.experts * 2
    return Work(
        forward_flops=product * 5,
        both_flops=product * (5 + 18),
        forward_bytes=2 * inside + weights,
        both_bytes=4 * inside + 2 * weights,
    )


GROUP = Group(
    name="grove",
    title="a grove of edge layers, beside the dense pair of the same total parameters",
    cases=CASES,
    ways=names,
    work=work,
    run=run_way,
)
