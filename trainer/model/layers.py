"""From a recipe's words to layers: which token mixer and which channel mixer each block of a model has."""

from collections.abc import Callable

from torch import nn

from ..model_config import Mixer, ModelConfig
from ..ops.bspline import SplineGrid
from .ada import ArnoldDiffusionAttention
from .attention import CausalAttention
from .block import Block
from .cyclic import CyclicEdge, CyclicLinear
from .edge import EdgeLayer, FeedForward
from .factors import FactoredEdge, FactoredLinear, SharedFactors
from .grove import GatedSubnets, Grove, KanSubnets
from .kalman import KalmanFilter
from .knowledge import KnowledgeBias
from .mlp import DenseLinear, GatedLinear
from .mra import MultiResolutionAttention

ROLES = ("enter", "leave")


def make_factors(config: ModelConfig) -> nn.ModuleDict:
    """The factors that the channel mixers of all layers share, by their role; none where the recipe has none."""
    if not config.factor_rank:
        return nn.ModuleDict()
    edge_weights = config.grid_cells + 4 if config.channel == "kan" else 1
    sizes = _role_sizes(config)
    return nn.ModuleDict({role: SharedFactors(*sizes[role], config.factor_rank, edge_weights) for role in ROLES})


def make_block(config: ModelConfig, kind: Mixer, factors: nn.ModuleDict) -> Block:
    """One block with that token mixer and the recipe's channel mixer, without start values."""
    return Block(
        config.width,
        make_mixer(config, kind),
        make_channel(config, factors),
        # Edge layers scale their inputs by themselves, and a gain before them would slide inputs along the grid.
        normalise_channel=config.channel != "kan",
        dropout=config.dropout,
    )


def make_mixer(config: ModelConfig, kind: Mixer) -> nn.Module:
    """A token mixer by its name in recipes."""
    ada, multires = config.ada, config.multires
    makers: dict[Mixer, Callable[[], nn.Module]] = {
        "softmax": lambda: CausalAttention(
            config.width, config.heads, config.qk_norm, KnowledgeBias(config.heads) if config.knowledge else None
        ),
        "ada": lambda: ArnoldDiffusionAttention(
            config.width, config.heads, ada.window, ada.decay == "data", ada.chunk
        ),
        "multires": lambda: MultiResolutionAttention(
            config.width, config.heads, multires.window, multires.levels, multires.fuse
        ),
        "kalman": lambda: KalmanFilter(config.width),
    }  # fmt: skip
    return makers[kind]()


def make_channel(config: ModelConfig, factors: nn.ModuleDict) -> nn.Module:
    """The recipe's channel mixer."""
    if config.channel in {"grove", "grove-kan"}:
        return make_grove(config)
    layers = [make_layer(config, role, factors) for role in ROLES]
    return FeedForward(*layers) if config.channel == "kan" else GatedLinear(*layers)


def make_grove(config: ModelConfig) -> Grove:
    """The channel mixer `grove` or `grove-kan`."""
    grove, width, hidden = config.grove, config.width, config.hidden
    if config.channel == "grove":
        subnets: KanSubnets | GatedSubnets = GatedSubnets(grove.experts, width, hidden)
    else:
        subnets = KanSubnets(grove.experts, width, hidden, spline_grid(config), config.edge_form)
    return Grove(
        width,
        subnets,
        experts=grove.experts,
        active=grove.active,
        selector_rank=grove.selector_rank,
        balance_rate=grove.balance_rate,
    )


def make_layer(config: ModelConfig, role: str, factors: nn.ModuleDict) -> nn.Module:
    """One of the two layers of a channel mixer: edges or linear, plain, factored or cyclic."""
    inputs, outputs = _role_sizes(config)[role]
    grid, form, order = spline_grid(config), config.edge_form, config.group_order
    if factors:
        shared = factors[role]
        assert isinstance(shared, SharedFactors)
        return FactoredEdge(shared, grid, form) if config.channel == "kan" else FactoredLinear(shared)
    if order > 1:
        is_edge = config.channel == "kan"
        return CyclicEdge(inputs, outputs, order, grid, form) if is_edge else CyclicLinear(inputs, outputs, order)
    return EdgeLayer(inputs, outputs, grid, form) if config.channel == "kan" else DenseLinear(inputs, outputs)


def spline_grid(config: ModelConfig) -> SplineGrid:
    """The grid of all edges."""
    return SplineGrid(cells=config.grid_cells, limit=config.grid_limit)


def _role_sizes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each role; a gated pair enters with gates beside values."""
    entered = config.hidden if config.channel == "kan" else 2 * config.hidden
    return {"enter": (config.width, entered), "leave": (config.hidden, config.width)}
