"""Shared factors: one parameter, one entry, one gradient for all layers; their product; the start's variance."""

import copy

import pytest
import torch
from safetensors.torch import save

from kanctl.trainer.model import KanLM, next_token_loss
from kanctl.trainer.model.factors import FactoredEdge, FactoredLinear, SharedFactors
from kanctl.trainer.model_config import ModelConfig
from kanctl.trainer.ops.bspline import SplineGrid
from kanctl.trainer.ops.bspline.reference import edge_linear_reference

GRID = SplineGrid()


def config(**more) -> ModelConfig:
    return ModelConfig(
        **{"layers": 3, "width": 16, "heads": 2, "context_tokens": 8, "hidden": 12, "factor_rank": 4} | more
    )


def layer(kind: str, inputs: int = 10, outputs: int = 6, rank: int = 3):
    factors = SharedFactors(inputs, outputs, rank, GRID.bases + 1 if kind == "edge" else 1)
    made = FactoredEdge(factors, GRID) if kind == "edge" else FactoredLinear(factors)
    factors.start(torch.Generator().manual_seed(1))
    made.start(torch.Generator().manual_seed(2))
    return factors, made


def test_a_factored_linear_layer_is_the_product_of_its_factors() -> None:
    factors, made = (part.double() for part in layer("linear"))
    x = torch.randn(7, 10).double()
    whole_OI = factors.out_OR @ made.core_RR @ factors.in_JIR[0].T
    torch.testing.assert_close(made(x), x @ whole_OI.T)


def test_a_factored_edge_layer_is_an_edge_layer_with_the_product_as_weights() -> None:
    factors, made = (part.double() for part in layer("edge"))
    x = torch.randn(7, 10).double()
    whole_JIO = factors.in_JIR @ made.core_RR.T @ factors.out_OR.T
    normed = torch.nn.functional.rms_norm(x, (10,), eps=1e-6)
    torch.testing.assert_close(made(x), edge_linear_reference(normed, whole_JIO, GRID))


@pytest.mark.parametrize("kind", ["linear", "edge"])
def test_the_start_keeps_the_variance(kind: str) -> None:
    _, made = layer(kind, 200, 300, 64)
    out = made(torch.randn(2000, 200, generator=torch.Generator().manual_seed(3)))
    assert 0.8 < out.var().item() < 1.25


@pytest.mark.parametrize("channel", ["kan", "mlp"])
def test_shared_factors_are_there_once(channel: str) -> None:
    model = KanLM(config(channel=channel), seed=1)
    names = [name for name, _ in model.named_parameters() if "JIR" in name or "out_OR" in name]
    assert sorted(names) == [f"factors.{role}.{part}" for role in ("enter", "leave") for part in ("in_JIR", "out_OR")]
    assert model.shared_factor_layers() == dict.fromkeys(names, 3)
    assert len(model.state_dict()) == len(dict(model.named_parameters()))
    # safetensors refuses tensors that share memory.
    assert save(model.state_dict())


def test_copies_and_loaded_models_share_their_own_factors() -> None:
    model = KanLM(config(), seed=1)
    twin, other = copy.deepcopy(model), KanLM(config(), seed=2)
    other.load_state_dict(model.state_dict())
    tokens = torch.randint(0, 257, (2, 8))
    for made in (twin, other):
        assert torch.equal(made(tokens), model(tokens))
        made.factors["enter"].out_OR.data.zero_()
        assert not torch.equal(made(tokens), model(tokens))


def test_factors_get_the_gradient_of_all_layers() -> None:
    model = KanLM(config(mixers=("softmax",)), seed=1).double()
    tokens = torch.randint(0, 257, (2, 9))
    factor = model.factors["enter"].out_OR
    loss = next_token_loss(model(tokens[:, :-1]), tokens[:, 1:])
    (slope,) = torch.autograd.grad(loss, factor)
    nudge = torch.randn_like(slope) * 1e-6
    with torch.no_grad():
        factor += nudge
        moved = next_token_loss(model(tokens[:, :-1]), tokens[:, 1:])
    torch.testing.assert_close(moved - loss, (slope * nudge).sum(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("rank", [0, 7])
def test_a_rank_beyond_the_layer_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"wanted a rank from 1 to 6, found {rank}"):
        SharedFactors(10, 6, rank)
