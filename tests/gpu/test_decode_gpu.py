"""Decoding on a GPU: steps as CUDA graphs give what ordinary steps give, and sampling the same bytes."""

import pytest
import torch

from kanctl.trainer.model import KanLM
from kanctl.trainer.model.decoding import prefill, step
from kanctl.trainer.model.graphed import GraphedSteps, can_be_graphed
from kanctl.trainer.model_config import ModelConfig, MultiresConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("channel", ["mlp", "kan", "grove", "grove-kan"])
@pytest.mark.parametrize("mixers", [("softmax",), ("ada",), ("kalman",), ("multires",), ("ada", "multires", "softmax")])
def test_graphed_steps_give_the_same_logits(mixers: tuple[str, ...], channel: str) -> None:
    config = ModelConfig(
        layers=3, width=64, heads=4, context_tokens=512, hidden=64, mixers=mixers, channel=channel,
        multires=MultiresConfig(window=16, levels=(16,)),
    )  # type: ignore[arg-type]  # fmt: skip
    model = KanLM(config, seed=3).cuda().eval()
    assert can_be_graphed(model, 1)
    tokens_BT = torch.randint(0, 256, (1, 400), device="cuda")
    tokens_BT[0, 200] = 256
    _, plain = prefill(model, tokens_BT[:, :9])
    _, state = prefill(model, tokens_BT[:, :9])
    steps = GraphedSteps(model, state)
    for place in range(9, 400):
        wanted, plain = step(model, tokens_BT[:, place], plain)
        torch.testing.assert_close(steps(tokens_BT[:, place]), wanted, rtol=1e-4, atol=1e-4)
