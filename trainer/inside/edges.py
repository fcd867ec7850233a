"""The strongest edges of a model: their curves, and where their inputs fall.

An edge is strong when what it adds to its output varies much over real inputs: the standard deviation of its curve's
values over the validation text. Letters: N rows, I inputs, O outputs, J features of an input.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.cyclic import CyclicEdge, circulant
from ..model.edge import NORM_EPSILON, EdgeLayer
from ..model.factors import FactoredEdge
from ..ops.bspline import SplineGrid
from ..ops.bspline.features import features

# Rows that are kept of each layer's inputs, spread over the text.
MOST_ROWS = 2048
CURVE_POINTS = 121
HISTOGRAM_BINS = 48


@dataclass(frozen=True, slots=True)
class Edge:
    """One spline: the layer's name in the model, its input, its output, and how strong it is there."""

    layer: str
    input: int
    output: int
    strength: float


@dataclass(frozen=True, slots=True)
class EdgeCurve:
    """An edge's curve and its inputs."""

    edge: Edge
    grid: SplineGrid
    weight_J: Tensor
    """G + 3 coefficients, then the weight of SiLU; float32."""
    inputs_N: Tensor
    """Normalised inputs, float32."""

    def value(self, x_N: Tensor) -> Tensor:
        """The curve at these inputs, in their dtype."""
        return edge_features(x_N, self.grid) @ self.weight_J.to(x_N.dtype)

    def row(self) -> dict[str, object]:
        """The documented object: points of the curve and of its two parts, and a histogram of the inputs."""
        limit = self.grid.limit
        x_N = torch.linspace(-limit, limit, CURVE_POINTS)
        parts = edge_features(x_N, self.grid) * self.weight_J
        inside_N = self.inputs_N[self.inputs_N.abs() <= limit]
        counts = torch.histc(inside_N, HISTOGRAM_BINS, -limit, limit)
        return {
            "layer": self.edge.layer, "input": self.edge.input, "output": self.edge.output,
            "strength": rounded(self.edge.strength), "x": numbers(x_N), "y": numbers(parts.sum(1)),
            "spline": numbers(parts[:, :-1].sum(1)), "silu": numbers(parts[:, -1]),
            "input_counts": [int(count) for count in counts], "input_limit": limit,
            "inputs_outside_share": rounded(1 - len(inside_N) / len(self.inputs_N)),
        }  # fmt: skip


def edge_features(x_N: Tensor, grid: SplineGrid) -> Tensor:
    """Bases and SiLU of single inputs, (N, J)."""
    return features(x_N[:, None], grid, "cell")[:, :, 0]


def edge_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose edges can be looked at, by name: plain, factored and cyclic ones.

    Those of a grove are left out: each of its subnets sees other tokens.
    """
    kinds = (EdgeLayer, FactoredEdge, CyclicEdge)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@torch.no_grad()
def whole_weight(layer: nn.Module) -> Tensor:
    """A layer's weight as if it were a plain edge layer's, (J, I, O), float32 on the CPU."""
    if isinstance(layer, FactoredEdge):
        out_RO = (layer.factors.out_OR @ layer.core_RR).T
        weight_JIO = layer.factors.in_JIR @ out_RO
    else:
        assert isinstance(layer, EdgeLayer | CyclicEdge)
        weight_JIO = layer.weight_JIO if isinstance(layer, EdgeLayer) else circulant(layer.weight_JPQg)
    return weight_JIO.detach().float().cpu()


def strongest_edges(model: nn.Module, run: Callable[[], object], count: int) -> list[EdgeCurve]:
    """The strongest edges of all layers, first the strongest.

    Args:
        run: passes real text through the model.
    """
    layers = edge_layers(model)
    with _inputs_of(layers) as inputs:
        run()
    found = []
    for name, layer in layers.items():
        x_NI = F.rms_norm(inputs[name], inputs[name].shape[-1:], eps=NORM_EPSILON)
        weight_JIO = whole_weight(layer)
        strength_IO = _strengths(x_NI, weight_JIO, layer.grid)  # type: ignore[arg-type]
        best = strength_IO.flatten().topk(min(count, strength_IO.numel()))
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            source, target = divmod(place, strength_IO.shape[1])
            edge = Edge(name, source, target, value)
            found.append(EdgeCurve(edge, layer.grid, weight_JIO[:, source, target], x_NI[:, source]))  # type: ignore[arg-type]
    return sorted(found, key=lambda curve: -curve.edge.strength)[:count]


@contextmanager
def _inputs_of(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What each layer gets meanwhile, float32 rows (N, I) on the CPU: evenly thinned to MOST_ROWS at the end."""
    parts: dict[str, list[Tensor]] = {name: [] for name in layers}
    inputs: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kept=parts[name]: kept.append(args[0].detach().flatten(0, -2)[:MOST_ROWS].float().cpu())
        )
        for name, layer in layers.items()
    ]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()
    for name, kept in parts.items():
        rows = torch.cat(kept)
        inputs[name] = rows[:: max(1, -(-len(rows) // MOST_ROWS))]


def _strengths(x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid) -> Tensor:
    """Standard deviation of each edge's values over the rows, (I, O)."""
    features_NJI = features(x_NI, grid, "cell")
    centred_NJI = features_NJI - features_NJI.mean(0)
    covariance_IJJ = torch.einsum("nji,nki->ijk", centred_NJI, centred_NJI) / len(x_NI)
    variance_IO = (torch.einsum("ijk,kio->jio", covariance_IJJ, weight_JIO) * weight_JIO).sum(0)
    return variance_IO.clamp(min=0).sqrt()


def numbers(values: Tensor) -> list[float]:
    """For JSON, six digits."""
    return [rounded(value) for value in values.tolist()]


def rounded(value: float) -> float:
    """Six digits."""
    return float(f"{value:.6g}")
