"""What a model costs: parameters and arithmetic, from its config alone, without torch.

A Kolmogorov-Arnold layer looks dear beside a linear layer of the same width and equal beside one of the same number of
parameters; a table that shows one of the two misleads, so both are here.
"""

from dataclasses import dataclass

from .model_config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """Counts of one model. Multiply and add are two FLOPs; norms, rotary turns, softmax and bases are left out."""

    parameters: int
    """All weights; the embedding, which is the output layer too, counts once."""
    active_parameters: int
    """The weights that one token is multiplied with: all, while no layer is sparse."""
    edge_parameters: int
    """Those in edge layers."""
    forward_flops_per_token: int
    """Of a full sequence: each token attends to half of context_tokens on average."""
    edge_flops_per_token: int
    """The edge layers' share of the above."""
    edge_flops_over_same_width: float
    """Over linear layers of the same widths, which have fewer parameters: G + 4."""
    edge_flops_over_same_parameters: float
    """Over linear layers with as many parameters as the edge layers: 1."""

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward: the backward pass has two products for each one of the forward pass."""
        return 3 * self.forward_flops_per_token


def model_cost(config: ModelConfig) -> ModelCost:
    """Count one model. Source for the edge layer: trainer/ops/bspline/README.md, cost."""
    width, layers = config.width, config.layers
    edges = layers * 2 * width * config.hidden
    edge_parameters = edges * (config.grid_cells + 4)
    edge_flops = 2 * edge_parameters
    attention_parameters = layers * 4 * width * width
    embedding_parameters = config.vocab_size * width
    norm_parameters = (layers + 1) * width
    parameters = embedding_parameters + norm_parameters + attention_parameters + edge_parameters
    # Scores and mixing: two products of 2 * width FLOPs for each of context / 2 keys.
    mixing_flops = layers * 2 * width * config.context_tokens
    forward = edge_flops + 2 * attention_parameters + mixing_flops + 2 * embedding_parameters
    return ModelCost(
        parameters=parameters,
        active_parameters=parameters,
        edge_parameters=edge_parameters,
        forward_flops_per_token=forward,
        edge_flops_per_token=edge_flops,
        edge_flops_over_same_width=edge_flops / (2 * edges),
        edge_flops_over_same_parameters=edge_flops / (2 * edge_parameters),
    )
