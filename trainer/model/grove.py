"""KalmaGrove as a channel mixer: subnets, their selectors, gates, and the offsets that keep their load even.

Letters: D width, M hidden channels of a subnet, E experts (subnets), r selector rank, J weights of an edge, N tokens.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bspline import EdgeForm, SplineGrid, grouped_edge_linear
from ..ops.bspline.route import route_grouped_edge_linear
from ..ops.grove import Choice, choose, dispatch, grouped_linear
from ..ops.grove.plain import LEAST_SCORE
from ..ops.grove.route import route_grouped_linear
from ..ops.route import Machine, Route, dtype_name, machine_of
from ..ops.token import Gates, token_grove
from .edge import NORM_EPSILON, edge_spreads
from .mlp import GATE_POWER

# Gates start nearly open: sigmoid(2) = 0.88.
GATE_START = 2.0
# Implementations that run one subnet after the other.
HOST_ROUTES = ("torch", "each")


class KanSubnets(nn.Module):
    """E pairs of edge layers, D to M to D, each weight one tensor for all."""

    def __init__(self, experts: int, width: int, hidden: int, grid: SplineGrid, form: EdgeForm = "cell") -> None:
        super().__init__()
        self.grid, self.form = grid, form
        self.enter_EJIO = nn.Parameter(torch.empty(experts, grid.bases + 1, width, hidden))
        self.leave_EJIO = nn.Parameter(torch.empty(experts, grid.bases + 1, hidden, width))

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights as single edge layers do."""
        for weight_EJIO, scale in ((self.enter_EJIO, 1.0), (self.leave_EJIO, output_scale)):
            spline_sd, silu_sd = edge_spreads(weight_EJIO.shape[2])
            weight_EJIO[:, :-1].normal_(0, scale * spline_sd, generator=generator)
            weight_EJIO[:, -1].normal_(0, scale * silu_sd, generator=generator)

    def forward(self, x_MD: Tensor, ends_E: Tensor) -> Tensor:
        """Rows in the order of their experts, those of expert e ending before ends_E[e], to (M, D).

        Each layer normalises its inputs.
        """
        for weight_EJIO in (self.enter_EJIO, self.leave_EJIO):
            normed = F.rms_norm(x_MD, x_MD.shape[-1:], eps=NORM_EPSILON)
            x_MD = grouped_edge_linear(normed, weight_EJIO, ends_E, self.grid, self.form)
        return x_MD

    def routes(self, machine: Machine, dtype: str, rows: int | None = None) -> dict[str, Route]:
        """What computes the edge layers there, and why, for so many rows of all experts (None: many)."""
        groups, features, inputs, outputs = self.enter_EJIO.shape
        return route_grouped_edge_linear(
            machine, features=features, groups=groups, inputs=inputs, outputs=outputs, dtype=dtype, rows=rows
        ).by_work()


class GatedSubnets(nn.Module):
    """E gated pairs of linear layers, D to M to D, each weight one tensor for all."""

    def __init__(self, experts: int, width: int, hidden: int) -> None:
        super().__init__()
        self.enter_EIO = nn.Parameter(torch.empty(experts, width, 2 * hidden))
        self.leave_EIO = nn.Parameter(torch.empty(experts, hidden, width))

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights as a single gated pair does."""
        self.enter_EIO.normal_(0, self.enter_EIO.shape[1] ** -0.5, generator=generator)
        self.leave_EIO.normal_(0, output_scale * (GATE_POWER * self.leave_EIO.shape[1]) ** -0.5, generator=generator)

    def forward(self, x_MD: Tensor, ends_E: Tensor) -> Tensor:
        """Rows in the order of their experts, those of expert e ending before ends_E[e], to (M, D)."""
        gate, value = grouped_linear(x_MD, self.enter_EIO, ends_E).chunk(2, dim=-1)
        return grouped_linear(F.silu(gate) * value, self.leave_EIO, ends_E)

    def routes(self, machine: Machine, dtype: str, rows: int | None = None) -> dict[str, Route]:
        """What computes the linear layers there, and why, for so many rows of all experts (None: many)."""
        layers = {"enter": self.enter_EIO, "leave": self.leave_EIO}
        sizes = {name: {"inputs": weight.shape[1], "outputs": weight.shape[2]} for name, weight in layers.items()}
        return {name: route_grouped_linear(machine, **each, dtype=dtype, rows=rows) for name, each in sizes.items()}


class Grove(nn.Module):
    """A channel mixer of E subnets, of which each token uses `active`.

    Args:
        width: D. Inputs are expected at a root mean square of about one, because gates depend on their size.
        subnets: KanSubnets or GatedSubnets of as many experts.
        experts: E; active: k; selector_rank: r.
        balance_rate: by how much update_balance moves an offset.

    Source: MODEL.md section 2; trainer/ops/grove/README.md. The offsets are those of arXiv 2408.15664.
    """

    balance_ticks_E: Tensor
    load_E: Tensor

    def __init__(
        self,
        width: int,
        subnets: KanSubnets | GatedSubnets,
        *,
        experts: int,
        active: int,
        selector_rank: int = 8,
        balance_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if not 1 <= active <= experts or not 1 <= selector_rank <= width:
            found = f"{active} of {experts} and rank {selector_rank}"
            raise ValueError(f"wanted 1 <= active <= experts and a selector rank of at most {width}, found {found}")
        self.subnets = subnets
        self.experts, self.active, self.balance_rate = experts, active, balance_rate
        self.selector_ErD = nn.Parameter(torch.empty(experts, selector_rank, width))
        self.gate_ED = nn.Parameter(torch.empty(experts, width))
        self.gate_bias_E = nn.Parameter(torch.empty(experts))
        # b = rate * ticks: whole numbers stay exact when an engine casts the model to bfloat16.
        self.register_buffer("balance_ticks_E", torch.zeros(experts, dtype=torch.int64))
        self.register_buffer("load_E", torch.zeros(experts, dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Selectors with orthonormal rows, gates nearly open, even offsets; the subnets as they start alone."""
        drawn_EDr = torch.randn(self.selector_ErD.transpose(1, 2).shape, generator=generator, dtype=torch.float64)
        self.selector_ErD.copy_(torch.linalg.qr(drawn_EDr).Q.transpose(1, 2))
        self.gate_ED.zero_()
        self.gate_bias_E.fill_(GATE_START)
        # Gates, and the mean over k outputs, take from the variance; the outputs start as large as one subnet's.
        opening = torch.sigmoid(torch.tensor(GATE_START, device="cpu")).item()
        self.subnets.start(generator, output_scale * self.active**0.5 / opening)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D); in training the load of each subnet is counted, once per backward pass."""
        x_ND = x.flatten(0, -2) if x.dim() > 1 else x[None]
        choice = self.choice(x_ND)
        # A reversible stack runs a block twice, the first time without gradients.
        if self.training and torch.is_grad_enabled():
            # Whole numbers: the order of the additions is no matter. A bincount would ask for the largest of them.
            chosen_M = choice.expert_Nk.flatten()
            self.load_E.scatter_add_(0, chosen_M, torch.ones_like(chosen_M))
        return dispatch(x_ND, choice, self.experts, self.subnets).view_as(x)

    def choice(self, x_ND: Tensor) -> Choice:
        """Which subnets tokens use, and how much of each."""
        offset_E = self.balance_ticks_E.to(torch.promote_types(x_ND.dtype, torch.float32)) * self.balance_rate
        return choose(x_ND, self.selector_ErD, self.gate_ED, self.gate_bias_E, offset_E, self.active)

    @property
    def has_edges(self) -> bool:
        """Whether the subnets are edge layers."""
        return isinstance(self.subnets, KanSubnets)

    def step_onto(self, x_BD: Tensor, gain_D: Tensor) -> Tensor:
        """x plus this grove's values for x scaled by a norm with that gain, for a row that ops/token serves."""
        assert isinstance(self.subnets, KanSubnets)
        gates = Gates(
            selector_ErD=self.selector_ErD, gate_ED=self.gate_ED, bias_E=self.gate_bias_E,
            ticks_E=self.balance_ticks_E, rate=self.balance_rate, active=self.active, least=LEAST_SCORE,
        )  # fmt: skip
        weights = (self.subnets.enter_EJIO, self.subnets.leave_EJIO)
        return token_grove(x_BD, gain_D, gates, *weights, self.subnets.grid, NORM_EPSILON)

    def asks_the_host(self, tokens: int) -> bool:
        """Whether a pass of so many tokens waits until the host has read how many rows each subnet has."""
        machine, dtype = machine_of(self.gate_ED.device), dtype_name(self.gate_ED)
        routes = self.subnets.routes(machine, dtype, tokens * self.active)
        return any(route.implementation in HOST_ROUTES for route in routes.values())

    @torch.no_grad()
    def update_balance(self, add_up: Callable[[Tensor], object] | None = None) -> None:
        """After each step: raise the offsets of subnets below the mean load, lower the others'; begin to count anew.

        Args:
            add_up: sums a tensor over all ranks in place; None where there is one.
        """
        load_E = self.load_E.clone()
        if add_up is not None:
            add_up(load_E)
        self.balance_ticks_E += torch.sign(load_E.sum() - self.experts * load_E)
        self.load_E.zero_()
