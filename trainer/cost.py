"""What a model costs: parameters and arithmetic, from its config alone, without torch.

A Kolmogorov-Arnold layer looks dear beside a linear layer of the same width and equal beside one of the same number of
parameters, and a grove small by what is active and large by what is stored; a table that shows one of two misleads, so
both are here.
"""

from dataclasses import dataclass

from .model_config import Mixer, ModelConfig

# Widths of the knowledge bias (trainer/model/knowledge.py, lexer_rules.py); a test holds them to the model.
KNOWLEDGE_VALUES = 311
KNOWLEDGE_WIDTH = 32
KNOWLEDGE_RANK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """Counts of one model. Multiply and add are two FLOPs; norms, turns, softmax, bases and scans are left out."""

    parameters: int
    """All weights; the embedding, which is the output layer too, counts once, and so do shared factors."""
    active_parameters: int
    """The weights that one token is multiplied with: all but those of subnets that it does not choose."""
    edge_parameters: int
    """Those in edge layers."""
    forward_flops_per_token: int
    """Of a full sequence: in softmax layers each token attends to half of context_tokens on average."""
    edge_flops_per_token: int
    """The edge layers' share of the above."""
    edge_flops_over_same_width: float
    """Over linear layers of the same widths, which have fewer parameters: G + 4. 0 without edges."""
    edge_flops_over_same_parameters: float
    """Over linear layers with as many parameters as are active in the edge layers: 1, more where weights are shared."""

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward: the backward pass has two products for each one of the forward pass."""
        return 3 * self.forward_flops_per_token


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One layer's share of the counts."""

    parameters: int
    active: int
    flops: int
    edge_parameters: int = 0
    edge_active: int = 0
    edge_flops: int = 0
    edge_same_width_flops: int = 0


def model_cost(config: ModelConfig) -> ModelCost:
    """Count one model. Source for the edge layer: trainer/ops/bspline/README.md, cost."""
    width = config.width
    channel = _channel(config)
    parts = [_mixer(config, kind) for kind in config.layer_mixers] + [channel] * config.layers
    embedding = config.vocab_size * width
    # Edge layers normalise their own input, without gains.
    norms = (config.layers * (1 if config.channel == "kan" else 2) + 1) * width
    factors, edge_factors = _factors(config)
    total = sum(part.parameters for part in parts) + factors + embedding + norms
    idle = sum(part.parameters - part.active for part in parts)
    edge_flops = config.layers * channel.edge_flops
    edge_active = config.layers * channel.edge_active + edge_factors
    same_width = config.layers * channel.edge_same_width_flops
    return ModelCost(
        parameters=total,
        active_parameters=total - idle,
        edge_parameters=config.layers * channel.edge_parameters + edge_factors,
        forward_flops_per_token=sum(part.flops for part in parts) + 2 * embedding,
        edge_flops_per_token=edge_flops,
        edge_flops_over_same_width=edge_flops / same_width if same_width else 0.0,
        edge_flops_over_same_parameters=edge_flops / (2 * edge_active) if edge_active else 0.0,
    )


def _mixer(config: ModelConfig, kind: Mixer) -> _Part:
    """A token mixer: four products of the width in each, and what meets along time."""
    width, head = config.width, config.head_size
    products = 4 * width * width
    more_parameters, more_products, mixing = 0, 0, 0
    if kind == "softmax":
        bias = 2 * KNOWLEDGE_WIDTH * config.heads * KNOWLEDGE_RANK if config.knowledge else 0
        more_parameters = bias + (KNOWLEDGE_VALUES * KNOWLEDGE_WIDTH if config.knowledge else 0)
        more_parameters += 2 * head if config.qk_norm else 0
        more_products = bias
        scores = width + (config.heads * KNOWLEDGE_RANK if config.knowledge else 0)
        # Scores and mixing: two FLOPs a channel for each of context / 2 keys.
        mixing = (scores + width) * config.context_tokens
    elif kind == "ada":
        decay = width * config.heads if config.ada.decay == "data" else 0
        more_parameters = width * config.ada.window + head + decay + (config.heads if decay else 0)
        more_products = decay
        # Scores and values in the chunk, then the state written and read; the diffusion's taps.
        mixing = 4 * width * min(config.ada.chunk, config.context_tokens) + 4 * width * head
        mixing += 2 * width * config.ada.window
    elif kind == "multires":
        blocks = sum(config.context_tokens / 2 / size for size in config.multires.levels)
        mixing = round(4 * width * (config.multires.window + blocks))
    else:
        more_parameters = 2 * width
    parameters = products + more_parameters
    return _Part(parameters=parameters, active=parameters, flops=2 * (products + more_products) + mixing)


def _channel(config: ModelConfig) -> _Part:
    """A channel mixer without the factors that all layers share."""
    grove = config.grove
    if config.channel not in {"grove", "grove-kan"}:
        return _pair(config)
    subnet = _subnet(config)
    selectors = grove.experts * config.width * (grove.selector_rank + 1)
    return _Part(
        parameters=grove.experts * (subnet.parameters + 1) + selectors,
        active=grove.active * subnet.active + selectors + grove.experts,
        flops=grove.active * subnet.flops + 2 * selectors,
        edge_parameters=grove.experts * subnet.edge_parameters,
        edge_active=grove.active * subnet.edge_active,
        edge_flops=grove.active * subnet.edge_flops,
        edge_same_width_flops=grove.active * subnet.edge_same_width_flops,
    )


def _subnet(config: ModelConfig) -> _Part:
    """One pair of layers with weights of its own."""
    pair = config.width * config.hidden
    if config.channel in {"kan", "grove-kan"}:
        edges = 2 * pair * (config.grid_cells + 4)
        return _Part(
            parameters=edges, active=edges, flops=2 * edges,
            edge_parameters=edges, edge_active=edges, edge_flops=2 * edges, edge_same_width_flops=4 * pair,
        )  # fmt: skip
    return _Part(parameters=3 * pair, active=3 * pair, flops=6 * pair)


def _pair(config: ModelConfig) -> _Part:
    """The pair of a layer without a grove: plain, cyclic (fewer weights, the same products), or factored."""
    plain = _subnet(config)
    if config.factor_rank:
        cores = 2 * config.factor_rank**2
        shared, shared_edges = _factors(config)
        edge_flops = 2 * shared_edges
        same_width = edge_flops // (config.grid_cells + 4) if shared_edges else 0
        return _Part(
            parameters=cores, active=cores, flops=2 * (cores + shared),
            edge_flops=edge_flops, edge_same_width_flops=same_width,
        )  # fmt: skip
    order = config.group_order
    return _Part(
        parameters=plain.parameters // order, active=plain.active // order, flops=plain.flops,
        edge_parameters=plain.edge_parameters // order, edge_active=plain.edge_active // order,
        edge_flops=plain.edge_flops,
        edge_same_width_flops=plain.edge_same_width_flops,
    )  # fmt: skip


def _factors(config: ModelConfig) -> tuple[int, int]:
    """Weights of the factors that all layers share, and those of them that meet edges' features."""
    rank = config.factor_rank
    if not rank:
        return 0, 0
    is_edge = config.channel == "kan"
    entered = config.hidden if is_edge else 2 * config.hidden
    inputs = (config.width + config.hidden) * rank * (config.grid_cells + 4 if is_edge else 1)
    return inputs + (entered + config.width) * rank, inputs if is_edge else 0
