"""Counts of parameters and FLOPs against the model itself, for every component."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from kanctl.trainer.cost import KNOWLEDGE_VALUES, model_cost
from kanctl.trainer.model import KanLM
from kanctl.trainer.model.lexer_rules import FEATURE_SIZES
from kanctl.trainer.model_config import AdaConfig, GroveConfig, ModelConfig

CONFIG = ModelConfig(layers=2, width=24, heads=2, context_tokens=16, hidden=20, mixers=("softmax",))
GROVE = GroveConfig(experts=4, active=2, selector_rank=3)
VARIANTS = {
    "kan": CONFIG,
    "more cells": replace(CONFIG, grid_cells=13, layers=3, vocab_size=260),
    "gpt": replace(CONFIG, channel="mlp", qk_norm=True),
    "ada": replace(CONFIG, mixers=("ada",), ada=AdaConfig(chunk=4)),
    "ada-data": replace(CONFIG, mixers=("ada",), ada=AdaConfig(decay="data", window=3)),
    "multires": replace(CONFIG, mixers=("multires", "softmax")),
    "kalman": replace(CONFIG, mixers=("kalman",)),
    "knowledge": replace(CONFIG, knowledge=True),
    "grove": replace(CONFIG, channel="grove", grove=GROVE),
    "grove-kan": replace(CONFIG, channel="grove-kan", grove=GROVE),
    "factored": replace(CONFIG, factor_rank=5),
    "factored mlp": replace(CONFIG, factor_rank=5, channel="mlp"),
    "cyclic": replace(CONFIG, group_order=4),
    "cyclic mlp": replace(CONFIG, group_order=4, channel="mlp"),
    "reversible": replace(CONFIG, reversible=True),
}
EACH = pytest.mark.parametrize("name", VARIANTS)


@EACH
def test_parameters_are_those_of_the_model(name: str) -> None:
    config = VARIANTS[name]
    model = KanLM(config, seed=0)
    cost = model_cost(config)
    assert cost.parameters == sum(weight.numel() for weight in model.parameters())
    # J stands for the weights of an edge: in plain, cyclic, factored and grouped layers alike.
    edges = [weight for name, weight in model.named_parameters() if "_J" in name or "_EJ" in name]
    assert cost.edge_parameters == (sum(weight.numel() for weight in edges) if "kan" in config.channel else 0)


@EACH
def test_active_parameters_leave_out_the_subnets_that_a_token_does_not_choose(name: str) -> None:
    config = VARIANTS[name]
    cost = model_cost(config)
    subnets = [weight for name, weight in KanLM(config, seed=0).named_parameters() if ".subnets." in name]
    assert cost.parameters - cost.active_parameters == sum(weight.numel() for weight in subnets) // 2


PRODUCTS = {"aten.mm", "aten.addmm", "kanctl.edge_linear", "kanctl.grouped_edge_linear"}


@register_flop_formula(torch.ops.kanctl.edge_linear)
def edge_linear_flops(x_NI: tuple[int, ...], weight_JIO: tuple[int, ...], *_: object, **__: object) -> int:
    """torch's counter does not see into operators of others; without a formula it counts none."""
    return 2 * x_NI[0] * math.prod(weight_JIO)


@register_flop_formula(torch.ops.kanctl.grouped_edge_linear)
def grouped_flops(x_MI: tuple[int, ...], weight_E: tuple[int, ...], *_: object, **__: object) -> int:
    """Each row meets the weights of one group."""
    return 2 * x_MI[0] * math.prod(weight_E[1:])


@EACH
def test_forward_flops_are_those_that_torch_counts_in_products_of_weights(name: str) -> None:
    config = VARIANTS[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        KanLM(config, seed=0)(torch.randint(0, 256, (1, config.context_tokens)))
    per_operation = counter.get_flop_counts()["Global"]
    products = sum(count for name, count in per_operation.items() if str(name) in PRODUCTS)
    # The same model seen without what meets along time: as many FLOPs as its products with weights alone.
    still = {kind: replace(config, mixers=(kind,), layers=1, context_tokens=2) for kind in config.mixers}
    mixing = sum(_mixing(replace(still[kind], context_tokens=config.context_tokens)) for kind in config.layer_mixers)
    cost = model_cost(config)
    assert products == config.context_tokens * (cost.forward_flops_per_token - mixing)
    assert cost.training_flops_per_token == 3 * cost.forward_flops_per_token


def _mixing(config: ModelConfig) -> int:
    """FLOPs along time of the one mixer of a config, by the formulas of docs/model.md."""
    (kind,) = config.layer_mixers
    width, tokens = config.width, config.context_tokens
    rank = 8 * config.heads if config.knowledge else 0
    return {
        "softmax": (2 * width + rank) * tokens,
        "ada": 4 * width * (min(config.ada.chunk, tokens) + config.head_size) + 2 * width * config.ada.window,
        "multires": round(4 * width * (config.multires.window + tokens / 2 / config.multires.levels[0])),
        "kalman": 0,
    }[kind]


@pytest.mark.parametrize(("cells", "ratio"), [(5, 9.0), (13, 17.0)])
@pytest.mark.parametrize("name", ["kan", "grove-kan"])
def test_an_edge_layer_costs_g_plus_4_linear_layers_or_one_of_equal_parameters(name, cells, ratio) -> None:
    cost = model_cost(replace(VARIANTS[name], grid_cells=cells))
    assert cost.edge_flops_over_same_width == ratio
    assert cost.edge_flops_over_same_parameters == 1.0


def test_shared_weights_cost_more_than_layers_of_as_many_parameters() -> None:
    assert model_cost(VARIANTS["cyclic"]).edge_flops_over_same_parameters == 4.0
    assert model_cost(VARIANTS["factored"]).edge_flops_over_same_parameters == 2.0
    assert model_cost(VARIANTS["gpt"]).edge_flops_over_same_parameters == 0.0


def test_the_knowledge_bias_has_as_many_values_as_the_lexer_tells() -> None:
    assert sum(FEATURE_SIZES) == KNOWLEDGE_VALUES
