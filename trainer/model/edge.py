"""Edge layers with their normalisation and start values, and the feed-forward made of two.

Letters: I inputs, O outputs, J = G + 4 weights of an edge (G + 3 spline coefficients, then SiLU's).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bspline import EdgeForm, SplineGrid, edge_linear
from ..ops.bspline.refine import RefineResidual, refine
from ..ops.bspline.route import route_edge_linear
from ..ops.route import Machine, Route

# Under N(0, 1) inputs: E[silu(x)^2], and E[sum over k of B_k(x)^2] on the grid of limit 3.
SILU_POWER = 0.353
BASES_POWER = 0.479
# Share of an edge's output variance that starts in its spline; the rest starts in its SiLU part.
SPLINE_SHARE = 0.2
NORM_EPSILON = 1e-6


class EdgeLayer(nn.Module):
    """One Kolmogorov-Arnold layer: each output is a sum of one learned curve per input.

    The input is scaled to a root mean square of 1 first, without learned gains: they would slide the inputs along the
    fixed grid, and an edge can learn any gain in its curve.
    """

    def __init__(self, inputs: int, outputs: int, grid: SplineGrid, form: EdgeForm) -> None:
        super().__init__()
        self.grid = grid
        self.form = form
        self.weight_JIO = nn.Parameter(torch.empty(grid.bases + 1, inputs, outputs))

    @torch.no_grad()
    def start(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw weights that keep the variance of N(0, 1) inputs times `scale` squared."""
        spline_sd, silu_sd = (scale * spread for spread in edge_spreads(self.weight_JIO.shape[1]))
        self.weight_JIO[:-1].normal_(0, spline_sd, generator=generator)
        self.weight_JIO[-1].normal_(0, silu_sd, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        normed = F.rms_norm(x, x.shape[-1:], eps=NORM_EPSILON)
        return edge_linear(normed, self.weight_JIO, self.grid, self.form)

    def routes(self, machine: Machine, dtype: str) -> dict[str, Route]:
        """What computes the layer there, and why; `dtype` by torch's name."""
        features, inputs, outputs = self.weight_JIO.shape
        return route_edge_linear(machine, features=features, inputs=inputs, outputs=outputs, dtype=dtype).by_work()

    def refined(self, cells: int) -> tuple["EdgeLayer", RefineResidual]:
        """A layer with the same curves on `cells` cells of the same interval, and how far each had to move.

        ops/bspline/refine.py says how. The optimiser's state of the old weight does not fit the new one.
        """
        grid = SplineGrid(cells=cells, limit=self.grid.limit)
        _, inputs, outputs = self.weight_JIO.shape
        weight_JIO, residual = refine(self.weight_JIO, self.grid, grid)
        layer = EdgeLayer(inputs, outputs, grid, self.form)
        layer.weight_JIO = nn.Parameter(weight_JIO, requires_grad=self.weight_JIO.requires_grad)
        return layer, residual


def edge_spreads(inputs: int) -> tuple[float, float]:
    """Standard deviations of coefficients and of SiLU weights that keep the variance. Source: MODEL.md section 1."""
    return (SPLINE_SHARE / (BASES_POWER * inputs)) ** 0.5, ((1 - SPLINE_SHARE) / (SILU_POWER * inputs)) ** 0.5


class FeedForward(nn.Module):
    """Two edge layers of any kind, width to hidden and back; each normalises its own input."""

    def __init__(self, enter: nn.Module, leave: nn.Module) -> None:
        super().__init__()
        self.enter = enter
        self.leave = leave

    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw start values; the layer that writes to the residual stream is scaled by `output_scale`."""
        self.enter.start(generator)  # type: ignore[operator]
        self.leave.start(generator, output_scale)  # type: ignore[operator]

    def forward(self, x_BTD: Tensor) -> Tensor:
        """What to add to the residual stream, (B, T, D)."""
        out: Tensor = self.leave(self.enter(x_BTD))
        return out
