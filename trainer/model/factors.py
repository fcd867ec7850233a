"""Grove factorisation: W_l = U S_l V^T with U and V shared by all layers, S_l each layer's own.

The model owns the factors, once: one tensor, one entry in checkpoints, one reduction over ranks. Layers hold them
without registering them. Letters: I inputs, O outputs, J weights of an edge, R rank.
Source: MODEL.md section 5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bspline import EdgeForm, SplineGrid, edge_linear
from ..ops.bspline.route import route_edge_linear
from ..ops.route import Machine, Route
from .edge import NORM_EPSILON, edge_spreads

# How far each layer's core starts from a multiple of the identity.
CORE_NOISE = 0.02


class SharedFactors(nn.Module):
    """U (O, R) and V (J, I, R) of one role, such as a feed-forward's first layer; J is 1 for linear layers."""

    def __init__(self, inputs: int, outputs: int, rank: int, weights_per_edge: int = 1) -> None:
        super().__init__()
        if not 1 <= rank <= min(inputs, outputs):
            raise ValueError(f"wanted a rank from 1 to {min(inputs, outputs)}, found {rank}")
        self.out_OR = nn.Parameter(torch.empty(outputs, rank))
        self.in_JIR = nn.Parameter(torch.empty(weights_per_edge, inputs, rank))

    @property
    def rank(self) -> int:
        """R."""
        return self.out_OR.shape[1]

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Orthonormal columns by QR; V's rows are then scaled as an edge's weights, so that V keeps the variance."""
        edges, inputs, rank = self.in_JIR.shape
        self.out_OR.copy_(_orthonormal(self.out_OR.shape[0], rank, generator))
        flat = _orthonormal(edges * inputs, rank, generator).view(edges, inputs, rank) * (edges * inputs) ** 0.5
        if edges == 1:
            self.in_JIR.copy_(flat * inputs**-0.5)
        else:
            spline_sd, silu_sd = edge_spreads(inputs)
            self.in_JIR[:-1] = flat[:-1] * spline_sd
            self.in_JIR[-1] = flat[-1] * silu_sd


class FactoredLayer(nn.Module):
    """What both kinds have: the core S_l and the way out through it."""

    def __init__(self, factors: SharedFactors) -> None:
        super().__init__()
        # In a tuple, which a module does not look into: copies and casts of the model keep it the model's own.
        self._factors = (factors,)
        self.core_RR = nn.Parameter(torch.empty(factors.rank, factors.rank))

    @property
    def factors(self) -> SharedFactors:
        """The shared factors."""
        return self._factors[0]

    @torch.no_grad()
    def start(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """g I and noise, with g = sqrt(O / R), which gives back what U takes from the variance, times `scale`."""
        gain = scale * (self.factors.out_OR.shape[0] / self.factors.rank) ** 0.5
        self.core_RR.normal_(0, CORE_NOISE * gain, generator=generator)
        self.core_RR.diagonal().add_(gain)

    def _leave(self, x_R: Tensor) -> Tensor:
        return F.linear(F.linear(x_R, self.core_RR), self.factors.out_OR)


class FactoredLinear(FactoredLayer):
    """A linear layer without bias, U S_l V^T."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        return self._leave(x @ self.factors.in_JIR[0])


class FactoredEdge(FactoredLayer):
    """An edge layer whose features meet V (J, I, R) first: with R = D / 8 and five cells 1.27 linear layers, not 9."""

    def __init__(self, factors: SharedFactors, grid: SplineGrid, form: EdgeForm = "cell") -> None:
        super().__init__(factors)
        self.grid, self.form = grid, form

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O); it normalises its own input."""
        normed = F.rms_norm(x, x.shape[-1:], eps=NORM_EPSILON)
        return self._leave(edge_linear(normed, self.factors.in_JIR, self.grid, self.form))

    def routes(self, machine: Machine, dtype: str) -> dict[str, Route]:
        """What computes the part with edges there, and why; `dtype` by torch's name."""
        features, inputs, rank = self.factors.in_JIR.shape
        return route_edge_linear(machine, features=features, inputs=inputs, outputs=rank, dtype=dtype).by_work()


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    # In float64: the sign and the last bits of a QR differ between libraries less there.
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    basis, upper = torch.linalg.qr(drawn)
    # The sign of each column is chosen, not left to the library.
    signed: Tensor = (basis * upper.diagonal().sign()).float()
    return signed
