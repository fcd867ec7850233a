"""Layers that a cyclic group of channel shifts passes through: f(g x) = g f(x), exactly, with as many fewer weights.

Channels stand in groups of g; the group's element shifts each group of inputs, and of outputs, by one. The scaling
to a root mean square of one does not see a shift, so edge layers keep it.
Letters: I inputs, O outputs, J weights of an edge, g order of the group, P = I / g and Q = O / g groups of channels.
Source: MODEL.md section 6; block-circulant weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bspline import EdgeForm, SplineGrid, edge_linear
from ..ops.bspline.route import route_edge_linear
from ..ops.route import Machine, Route
from .edge import NORM_EPSILON, edge_spreads


class CyclicLinear(nn.Module):
    """A linear layer without bias whose (O, I) weight is made of (g, g) circulant blocks: I O / g weights."""

    def __init__(self, inputs: int, outputs: int, order: int) -> None:
        super().__init__()
        groups_in, groups_out = _groups(inputs, outputs, order)
        self.order = order
        self.weight_PQg = nn.Parameter(torch.empty(groups_in, groups_out, order))

    @torch.no_grad()
    def start(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw weights that keep the variance of N(0, 1) inputs times `scale` squared."""
        inputs = self.weight_PQg.shape[0] * self.order
        self.weight_PQg.normal_(0, scale * inputs**-0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return F.linear(x, circulant(self.weight_PQg).T)


class CyclicEdge(nn.Module):
    """An edge layer whose weights are circulant in each group: J I O / g weights. It normalises its own input."""

    def __init__(self, inputs: int, outputs: int, order: int, grid: SplineGrid, form: EdgeForm = "cell") -> None:
        super().__init__()
        groups_in, groups_out = _groups(inputs, outputs, order)
        self.order, self.grid, self.form = order, grid, form
        self.weight_JPQg = nn.Parameter(torch.empty(grid.bases + 1, groups_in, groups_out, order))

    @torch.no_grad()
    def start(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw weights that keep the variance of N(0, 1) inputs times `scale` squared."""
        spline_sd, silu_sd = edge_spreads(self.weight_JPQg.shape[1] * self.order)
        self.weight_JPQg[:-1].normal_(0, scale * spline_sd, generator=generator)
        self.weight_JPQg[-1].normal_(0, scale * silu_sd, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        normed = F.rms_norm(x, x.shape[-1:], eps=NORM_EPSILON)
        return edge_linear(normed, circulant(self.weight_JPQg), self.grid, self.form)

    def routes(self, machine: Machine, dtype: str) -> dict[str, Route]:
        """What computes the layer there, and why; `dtype` by torch's name."""
        features, groups_in, groups_out, order = self.weight_JPQg.shape
        inputs, outputs = groups_in * order, groups_out * order
        return route_edge_linear(machine, features=features, inputs=inputs, outputs=outputs, dtype=dtype).by_work()


def circulant(weight_PQg: Tensor) -> Tensor:
    """(..., P, Q, g) to the whole weight (..., I, O): from place q of a group to place p counts entry (p - q) mod g."""
    order = weight_PQg.shape[-1]
    place_g = torch.arange(order, device=weight_PQg.device)
    whole_PQgg = weight_PQg[..., (place_g - place_g[:, None]) % order]
    return whole_PQgg.transpose(-3, -2).flatten(-2).flatten(-3, -2)


def shift(x: Tensor, order: int, by: int = 1) -> Tensor:
    """The group's element: every group of `order` channels of (..., I) shifted by so many places."""
    return x.view(*x.shape[:-1], -1, order).roll(by, -1).flatten(-2)


def _groups(inputs: int, outputs: int, order: int) -> tuple[int, int]:
    if order < 1 or inputs % order or outputs % order:
        raise ValueError(f"wanted inputs and outputs divisible by the order {order}, found {inputs} and {outputs}")
    return inputs // order, outputs // order
