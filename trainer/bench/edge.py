"""The edge layer's benchmark: ours as it is routed, each of our implementations, and other ways to such a layer.

`gemm` is no layer: the three products alone, by the vendor's library, with the features given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..ops.bspline import SplineGrid, edge_linear
from ..ops.bspline.reference import edge_linear_reference
from .edge_pieces import PIECES, is_for, made_of
from .edge_rivals import RIVALS, SAME_FUNCTION
from .group import Group, Work, relative_error, require_right
from .timing import Runs, measure, measure_gradients

# Tokens and inputs that are checked: float64 for all would take longer than everything else.
CHECKED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One size of layer."""

    tokens: int
    inputs: int
    outputs: int
    cells: int = 5
    graph: bool = False

    @property
    def name(self) -> str:
        """As tables call it."""
        graphed = ", CUDA graph" if self.graph else ""
        return f"{self.inputs} -> {self.outputs}, G = {self.cells}{graphed}"


CASES = [
    Case(tokens=16384, inputs=4096, outputs=4096),
    Case(tokens=16384, inputs=1024, outputs=4096),
    Case(tokens=16384, inputs=4096, outputs=1024),
    Case(tokens=16384, inputs=192, outputs=768, graph=True),
    Case(tokens=16384, inputs=768, outputs=192, graph=True),
    Case(tokens=16384, inputs=1024, outputs=4096, cells=13),
]
Way = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """The tensors of a case. The weight gives outputs of about unit size."""

    x_NI: Tensor
    weight_JIO: Tensor
    grad_NO: Tensor
    grid: SplineGrid


def make_layer(case: Case, device: str, dtype: torch.dtype) -> Layer:
    """Inputs of N(0, 1), as a normalisation leaves them."""
    grid = SplineGrid(cells=case.cells)
    generator = torch.Generator(device).manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    weight_JIO = draw(grid.bases + 1, case.inputs, case.outputs) * case.inputs**-0.5
    return Layer(draw(case.tokens, case.inputs), weight_JIO, draw(case.tokens, case.outputs), grid)


def ways(layer: Layer, device: str) -> dict[str, tuple[Way, bool]]:
    """Every way to the layer, and whether it computes our function."""
    grid = layer.grid
    found: dict[str, tuple[Way, bool]] = {"ours": (lambda x, weight: edge_linear(x, weight, grid), True)}
    if device == "cuda":
        found |= {name: (made_of(name, grid), True) for name in PIECES}
    for name, rival in RIVALS.items():
        plain: Way = lambda x, weight, rival=rival: rival(x, weight, grid)  # type: ignore[misc]  # noqa: E731
        found[name] = (plain, name in SAME_FUNCTION)
        if device == "cuda":
            found[f"{name}, compiled"] = (torch.compile(plain, dynamic=False), name in SAME_FUNCTION)
    return found


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way. Raises RuntimeError where it is wrong or does not fit."""
    layer = make_layer(case, device, dtype)
    gemm = _gemm(layer)
    if name == "gemm":
        forward, both = measure(gemm.forward, graph=case.graph), measure(gemm.both, graph=case.graph)
        return {"forward_ms": forward.ms, "both_ms": both.ms, "extra_mb": None, "errors": {}}
    way, is_ours = ways(layer, device)[name]
    errors = check(way, layer) if is_ours else {}
    require_right(errors, dtype)
    leaves = [x.detach().requires_grad_() for x in (layer.x_NI, layer.weight_JIO)]
    # Rivals' times are far from it, and their memory has no room for it.
    baseline = gemm if name.startswith("ours") else None
    measured = measure_gradients(lambda: way(*leaves), leaves, layer.grad_NO, graph=case.graph, baseline=baseline)
    return {**measured, "errors": errors}


def check(way: Way, layer: Layer) -> dict[str, float]:
    """The errors of values and gradients against float64, over some tokens and some inputs."""
    y_NO, grad_x_NI, grad_weight_JIO = _gradients(way, layer)
    ends = torch.cat([torch.arange(CHECKED), torch.arange(-CHECKED, 0) + len(layer.x_NI)])
    # Twice the same where there are few tokens, which changes no error.
    rows = (ends % len(layer.x_NI)).to(layer.x_NI.device)
    columns = slice(0, CHECKED)
    x_NI, weight_JIO = layer.x_NI[rows].double().requires_grad_(), layer.weight_JIO.double()
    wanted_NO = edge_linear_reference(x_NI, weight_JIO, layer.grid)
    (wanted_x_NI,) = torch.autograd.grad(wanted_NO, x_NI, layer.grad_NO[rows].double())
    part_JIO = layer.weight_JIO[:, columns].double().requires_grad_()
    some_NO = edge_linear_reference(layer.x_NI[:, columns].double(), part_JIO, layer.grid)
    (wanted_JIO,) = torch.autograd.grad(some_NO, part_JIO, layer.grad_NO.double())
    return {
        "y": relative_error(y_NO[rows], wanted_NO.detach()),
        "dx": relative_error(grad_x_NI[rows], wanted_x_NI),
        "dw": relative_error(grad_weight_JIO[:, columns], wanted_JIO),
    }


def _gradients(way: Way, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
    x_NI, weight_JIO = layer.x_NI.detach().requires_grad_(), layer.weight_JIO.detach().requires_grad_()
    y_NO = way(x_NI, weight_JIO)
    grad_x_NI, grad_weight_JIO = torch.autograd.grad(y_NO, (x_NI, weight_JIO), layer.grad_NO)
    return y_NO.detach(), grad_x_NI, grad_weight_JIO


def _gemm(layer: Layer) -> Runs:
    """The three products alone, by the vendor's library, with the features given."""
    weight_FO, grad_NO = layer.weight_JIO.flatten(0, 1), layer.grad_NO

    @cache
    def features_NF() -> Tensor:
        return torch.randn(len(layer.x_NI), len(weight_FO), device=layer.x_NI.device, dtype=layer.x_NI.dtype)

    return Runs(
        lambda: features_NF() @ weight_FO,
        lambda: (features_NF() @ weight_FO, grad_NO @ weight_FO.T, features_NF().T @ grad_NO),
    )


def names(device: str) -> list[str]:
    """The ways on a device, the baseline first."""
    own = ["gemm", "ours"]
    if device != "cuda":
        return own + list(RIVALS)
    return own + list(PIECES) + list(RIVALS) + [f"{name}, compiled" for name in RIVALS]


def work(case: Case) -> Work:
    """Three products; with five cells the splines' part of the first takes half the steps of sparse tensor cores."""
    features = case.cells + 4
    product = 2.0 * case.tokens * case.inputs * case.outputs
    forward = product * (features if features != 9 else 8 / 2 + 1)
    results = case.tokens * (case.inputs + case.outputs) * 2
    weight = features * case.inputs * case.outputs * 2
    return Work(
        forward_flops=forward,
        both_flops=forward + 2 * product * features,
        forward_bytes=results + weight,
        both_bytes=2 * (results + weight),
    )


GROUP = Group(
    name="edge",
    title="the edge layer, beside the vendor's matrix products of as many parameters",
    cases=CASES,
    ways=names,
    serves=lambda case, way: is_for(way, SplineGrid(cells=case.cells), case.inputs, case.outputs),
    work=work,
    run=run_way,
)
