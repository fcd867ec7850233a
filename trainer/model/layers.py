"""From a recipe's words to layers: which token mixer and which channel mixer each block of a model has."""

from torch import nn

from ..model_config import Mixer, ModelConfig
from ..ops.bspline import SplineGrid
from .ada import ArnoldDiffusionAttention
from .attention import CausalAttention
from .block import Block
from .edge import FeedForward
from .knowledge import KnowledgeBias
from .mlp import GatedLinear
from .mra import MultiResolutionAttention


def make_blocks(config: ModelConfig) -> list[Block]:
    """The blocks of a model, in order, without start values."""
    return [make_block(config, kind) for kind in config.layer_mixers]


def make_block(config: ModelConfig, kind: Mixer) -> Block:
    """One block with that token mixer and the recipe's channel mixer."""
    return Block(
        config.width,
        make_mixer(config, kind),
        make_channel(config),
        # Edge layers scale their inputs by themselves, and a gain before them would slide inputs along the grid.
        normalise_channel=config.channel != "kan",
        dropout=config.dropout,
    )


def make_mixer(config: ModelConfig, kind: Mixer) -> nn.Module:
    """A token mixer by its name in recipes."""
    if kind == "softmax":
        knowledge = KnowledgeBias(config.heads) if config.knowledge else None
        return CausalAttention(config.width, config.heads, config.qk_norm, knowledge)
    if kind == "multires":
        multires = config.multires
        return MultiResolutionAttention(config.width, config.heads, multires.window, multires.levels, multires.fuse)
    if kind == "ada":
        settings = config.ada
        return ArnoldDiffusionAttention(
            config.width, config.heads, settings.window, settings.decay == "data", settings.chunk
        )
    raise NotImplementedError(kind)


def make_channel(config: ModelConfig) -> nn.Module:
    """The recipe's channel mixer."""
    if config.channel == "mlp":
        return GatedLinear(config.width, config.hidden)
    if config.channel == "kan":
        return FeedForward(config.width, config.hidden, spline_grid(config), config.edge_form)
    raise NotImplementedError(config.channel)


def spline_grid(config: ModelConfig) -> SplineGrid:
    """The grid of all edges."""
    return SplineGrid(cells=config.grid_cells, limit=config.grid_limit)
