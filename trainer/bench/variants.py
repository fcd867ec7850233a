"""The models that are compared: the GPT baseline, each component alone, and components together. Pure; no torch.

All have as many parameters as the baseline, as nearly as whole hidden channels allow: a component must pay for itself.
"""

from collections.abc import Mapping
from dataclasses import replace

from ..cost import model_cost
from ..model_config import AdaConfig, GroveConfig, ModelConfig, MultiresConfig

# RMSNorm, rotary positions, gated linear pairs, normalised queries and keys: 0.89 M parameters.
BASELINE = ModelConfig(
    layers=4, width=128, heads=4, context_tokens=256, hidden=384, mixers=("softmax",), channel="mlp", qk_norm=True,
    isolate_documents=False, dropout=0.2,
)  # fmt: skip
GROVE = GroveConfig(experts=8, active=2, selector_rank=8)


def variants(baseline: ModelConfig = BASELINE) -> dict[str, ModelConfig]:
    """Name -> model. The baseline is called gpt."""
    multires = MultiresConfig(window=32, levels=(16,))
    changed = {
        "kan": replace(baseline, channel="kan"),
        "kan, 13 cells": replace(baseline, channel="kan", grid_cells=13),
        "grove": replace(baseline, channel="grove", grove=GROVE),
        "grove-kan": replace(baseline, channel="grove-kan", grove=GROVE),
        "ada": replace(baseline, mixers=("ada", "ada", "ada", "softmax")),
        "ada, data decay": replace(baseline, mixers=("ada", "ada", "ada", "softmax"), ada=AdaConfig(decay="data")),
        "ada only": replace(baseline, mixers=("ada",)),
        "multires": replace(baseline, mixers=("multires",), multires=multires),
        "kalman": replace(baseline, mixers=("kalman", "kalman", "kalman", "softmax")),
        "knowledge": replace(baseline, knowledge=True),
        "factors": replace(baseline, factor_rank=64),
        "cyclic": replace(baseline, group_order=4),
        # Dropout would have to be drawn twice alike; the plain block without it stands beside.
        "gpt, no dropout": replace(baseline, dropout=0.0),
        "reversible": replace(baseline, dropout=0.0, reversible=True),
        "kan + ada": replace(baseline, channel="kan", mixers=("ada", "ada", "ada", "softmax")),
        "together": replace(
            baseline, channel="kan", mixers=("ada", "kalman", "multires", "softmax"), multires=multires
        ),
    }  # fmt: skip
    wanted = model_cost(baseline).parameters
    return {"gpt": baseline, **{name: fit_hidden(config, wanted) for name, config in changed.items()}}


def fit_hidden(config: ModelConfig, parameters: int) -> ModelConfig:
    """The config with the hidden width that comes nearest to so many parameters; a multiple of 4, and of the group."""
    step = max(4, config.group_order)
    # A factored layer's rank is at most its hidden width.
    least = max(1, -(-config.factor_rank // step))
    low = replace(config, hidden=least * step)
    each = model_cost(replace(config, hidden=(least + 1) * step)).parameters - model_cost(low).parameters
    steps = max(0, round((parameters - model_cost(low).parameters) / each))
    return replace(config, hidden=(least + steps) * step)


def counts(config: ModelConfig) -> Mapping[str, int]:
    """The columns that depend on the config alone."""
    cost = model_cost(config)
    return {
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        "forward_flops_per_token": cost.forward_flops_per_token,
        "hidden": config.hidden,
    }
