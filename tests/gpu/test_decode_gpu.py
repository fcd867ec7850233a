"""Decoding on a GPU: steps as CUDA graphs give what ordinary steps give, and sampling the same bytes."""

import pytest
import torch

from kanctl.trainer.model import KanLM
from kanctl.trainer.model.decoding import prefill, step
from kanctl.trainer.model.graphed import GraphedSteps, can_be_graphed
from kanctl.trainer.model_config import AdaConfig, ModelConfig, MultiresConfig

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


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize(("width", "heads", "hidden"), [(64, 4, 64), (72, 3, 40), (1280, 10, 144)])
def test_steps_of_one_row_are_near_whole_passes_in_float64_and_the_same_twice(
    width: int, heads: int, hidden: int, window: int
) -> None:
    config = ModelConfig(
        layers=4, width=width, heads=heads, context_tokens=64, hidden=hidden, mixers=("ada", "softmax"),
        channel="grove-kan", ada=AdaConfig(window=window),
    )  # fmt: skip
    model = KanLM(config, seed=3).cuda().eval()
    tokens_BT = torch.randint(0, 256, (1, 60), generator=torch.Generator().manual_seed(1)).cuda()
    tokens_BT[0, 30] = 256
    found = []
    for _ in range(2):
        _, state = prefill(model, tokens_BT[:, :9])
        steps = GraphedSteps(model, state)
        found.append(torch.stack([steps(tokens_BT[:, place]).clone() for place in range(9, 60)], 1))
    assert torch.equal(*found)
    with torch.inference_mode():
        wanted_BTV = model.double()(tokens_BT)[:, 9:]
    assert float((found[0].double() - wanted_BTV).norm() / wanted_BTV.norm()) < 1e-5
