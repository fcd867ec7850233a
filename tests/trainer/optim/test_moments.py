"""What the hooks see is what the layers get, when it is wanted and only then."""

import pytest
import torch

from kanctl.trainer.model import KanLM, next_token_loss
from kanctl.trainer.model_config import ModelConfig
from kanctl.trainer.optim import moments as moments_module
from kanctl.trainer.optim.moments import InputMoments, LinearInputs, block_count


def test_every_watched_layer_of_every_component_shows_its_inputs(component: ModelConfig) -> None:
    model = KanLM(component, seed=1).train()
    moments = InputMoments(model)
    moments.is_collecting = True
    tokens_BT = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))
    next_token_loss(model(tokens_BT[:, :-1]), tokens_BT[:, 1:]).backward()
    named = dict(model.named_parameters())
    assert moments.sides.keys() <= named.keys()
    for name, side in moments.sides.items():
        moment_SCC = moments.newest(name)
        assert moment_SCC is not None, name
        assert moment_SCC.dtype == torch.float32
        assert side.multiply(moment_SCC, named[name].detach()).shape == named[name].shape


def test_a_linear_layers_moment_is_the_mean_outer_product_of_its_inputs() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False))
    moments = InputMoments(layer)
    x_NI = torch.randn(7, 4)
    layer(x_NI)
    assert moments.newest("0.weight") is None
    moments.is_collecting = True
    layer.eval()(x_NI)
    with torch.no_grad():
        layer.train()(x_NI)
    assert moments.newest("0.weight") is None
    layer(x_NI)
    moment_SCC = moments.newest("0.weight")
    assert moment_SCC is not None
    torch.testing.assert_close(moment_SCC[0], x_NI.T @ x_NI / 7)
    layer(2 * x_NI)
    assert moments.newest("0.weight") is moment_SCC
    torch.testing.assert_close(moment_SCC[0], 4 * x_NI.T @ x_NI / 7)


def test_many_rows_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments_module, "MOST_ROWS", 4)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    moments = InputMoments(layer)
    moments.is_collecting = True
    x_NI = torch.randn(2, 5, 3)
    layer(x_NI)
    rows = x_NI.flatten(0, 1)[::3]
    torch.testing.assert_close(moments.newest("0.weight"), (rows.T @ rows / 4)[None])


def test_wide_layers_are_cut_into_equal_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments_module, "MOST_INPUTS", 4)
    assert [block_count(inputs) for inputs in (1, 4, 6, 8, 9)] == [1, 1, 2, 2, 3]
    x_NI = torch.randn(50, 6)
    side = LinearInputs()
    moment_SCC = side.moment(x_NI)
    torch.testing.assert_close(moment_SCC[1], x_NI[:, 3:].T @ x_NI[:, 3:] / 50)
    slope_OI = torch.randn(2, 6)
    wanted = torch.cat([slope_OI[:, :3] @ moment_SCC[0], slope_OI[:, 3:] @ moment_SCC[1]], 1)
    torch.testing.assert_close(side.multiply(moment_SCC, slope_OI), wanted)
