"""Counts of parameters and FLOPs against the model itself."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kanctl.trainer.cost import model_cost
from kanctl.trainer.model import KanLM
from kanctl.trainer.model_config import ModelConfig

CONFIG = ModelConfig(layers=2, width=24, heads=2, context_tokens=16, hidden=20)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, grid_cells=13, layers=3, vocab_size=260)])
def test_parameters_are_those_of_the_model(config: ModelConfig) -> None:
    model = KanLM(config, seed=0)
    cost = model_cost(config)
    assert cost.parameters == cost.active_parameters == sum(weight.numel() for weight in model.parameters())
    edges = [weight for name, weight in model.named_parameters() if name.endswith("weight_JIO")]
    assert cost.edge_parameters == sum(weight.numel() for weight in edges)


def test_forward_flops_are_those_that_torch_counts_outside_attention() -> None:
    model = KanLM(CONFIG, seed=0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, CONFIG.context_tokens, dtype=torch.int64))
    per_operation = counter.get_flop_counts()["Global"]
    products = sum(count for name, count in per_operation.items() if str(name) in {"aten.mm", "aten.addmm"})
    cost = model_cost(CONFIG)
    mixing = CONFIG.layers * 2 * CONFIG.width * CONFIG.context_tokens
    assert products == CONFIG.context_tokens * (cost.forward_flops_per_token - mixing)
    assert cost.training_flops_per_token == 3 * cost.forward_flops_per_token


@pytest.mark.parametrize(("cells", "ratio"), [(5, 9.0), (13, 17.0)])
def test_an_edge_layer_costs_g_plus_4_linear_layers_or_one_of_equal_parameters(cells: int, ratio: float) -> None:
    cost = model_cost(replace(CONFIG, grid_cells=cells))
    assert cost.edge_flops_over_same_width == ratio
    assert cost.edge_flops_over_same_parameters == 1.0
