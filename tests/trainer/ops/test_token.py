"""One token's kernels, in the interpreter where there is no GPU, against the layers one by one in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kanctl.trainer.model import KanLM
from kanctl.trainer.model.ada import NORM_EPSILON, ArnoldDiffusionAttention, decay_pace
from kanctl.trainer.model.decoding import prefill
from kanctl.trainer.model.graphed import GraphedSteps, Run
from kanctl.trainer.model.grove import Grove, KanSubnets
from kanctl.trainer.model.kan_lm import END_OF_DOCUMENT
from kanctl.trainer.model_config import ModelConfig
from kanctl.trainer.ops import token
from kanctl.trainer.ops.ada import AdaState
from kanctl.trainer.ops.bspline import SplineGrid
from kanctl.trainer.ops.grove.plain import LEAST_SCORE
from kanctl.trainer.ops.route import Machine
from kanctl.trainer.ops.token import Gates, launch
from kanctl.trainer.ops.token.route import route_token

pytestmark = pytest.mark.usefixtures("poisoned")


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (20, 7), (64, 33), (5000, 3), (20, 4100)])
@pytest.mark.parametrize("is_normed", [False, True])
@pytest.mark.parametrize("is_added", [False, True])
def test_a_product_takes_the_norm_before_it_and_the_sum_after(
    inputs: int, outputs: int, is_normed: bool, is_added: bool
) -> None:
    x, weight, gain, added = draw(inputs), draw(outputs, inputs, seed=2), draw(inputs, seed=3), draw(outputs, seed=4)
    normed = F.rms_norm(x.double(), (inputs,), gain.double(), 1e-6) if is_normed else x.double()
    wanted = normed @ weight.double().T + (added.double() if is_added else 0)
    found = launch.linear(x, gain if is_normed else None, weight, added if is_added else None, 1e-6)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "hidden", "experts", "active", "rank", "cells"),
    [(8, 4, 1, 1, 1, 5), (20, 12, 5, 2, 3, 5), (40, 130, 6, 6, 2, 13), (70, 33, 16, 2, 8, 5)],
)
def test_a_grove_is_what_its_layers_are(
    width: int, hidden: int, experts: int, active: int, rank: int, cells: int
) -> None:
    grid = SplineGrid(cells=cells)
    grove = Grove(width, KanSubnets(experts, width, hidden, grid), experts=experts, active=active, selector_rank=rank)
    grove.start(torch.Generator().manual_seed(1), 1.0)
    with torch.no_grad():
        grove.gate_ED.copy_(draw(experts, width) * width**-0.5)
        grove.balance_ticks_E[-1] = 50
    x, gain = draw(width, seed=5), draw(width, seed=6).exp()
    gates = Gates(
        selector_ErD=grove.selector_ErD.detach(), gate_ED=grove.gate_ED.detach(), bias_E=grove.gate_bias_E.detach(),
        ticks_E=grove.balance_ticks_E, rate=grove.balance_rate, active=active, least=LEAST_SCORE,
    )  # fmt: skip
    weights = (grove.subnets.enter_EJIO.detach(), grove.subnets.leave_EJIO.detach())  # type: ignore[union-attr]
    found = launch.grove(x, gain, gates, *weights, grid, NORM_EPSILON)
    with torch.no_grad():
        wanted = x.double() + grove.double()(F.rms_norm(x.double(), (width,), gain.double(), NORM_EPSILON))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("width", "heads", "window"), [(6, 3, 1), (20, 4, 2), (96, 4, 4)])
@pytest.mark.parametrize("place", [0, 9])
def test_a_step_of_attention_is_what_its_layers_are(width: int, heads: int, window: int, place: int) -> None:
    mixer = ArnoldDiffusionAttention(width, heads, window)
    mixer.start(torch.Generator().manual_seed(1), 1.0)
    with torch.no_grad():
        mixer.out_norm.weight.copy_(draw(width // heads, seed=7))
        mixer.tap_logits_HCW.copy_(draw(heads, width // heads, window, seed=8))
    size, x = width // heads, draw(width)
    state = AdaState(sum_BHCC=draw(1, heads, size, size, seed=2), tail_BHWC=draw(1, heads, window - 1, size, seed=3))
    position = torch.tensor([place])
    found = launch.ada(
        mixer.qkv(x).detach(), mixer.tap_logits_HCW.detach(), position, state.sum_BHCC, state.tail_BHWC,
        mixer.out_norm.weight.detach(), (5.0, decay_pace(heads)), NORM_EPSILON,
    )  # fmt: skip
    before = AdaState(
        sum_BHCC=draw(1, heads, size, size, seed=2).double(),
        tail_BHWC=draw(1, heads, window - 1, size, seed=3).double(),
    )
    wide = mixer.double()
    wide.out = torch.nn.Identity()  # type: ignore[assignment]
    wanted, after = wide.step(x.double()[None], position, before)
    torch.testing.assert_close(found.double(), wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state.sum_BHCC.double(), after.sum_BHCC, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state.tail_BHWC.double(), after.tail_BHWC, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_normed", [False, True])
def test_steps_by_joined_kernels_give_the_logits_of_whole_passes(
    monkeypatch: pytest.MonkeyPatch, is_normed: bool
) -> None:
    monkeypatch.setattr(token, "serves", lambda x_BD, weight: len(x_BD) == 1)
    config = ModelConfig(
        layers=2, width=16, heads=2, context_tokens=128, hidden=8, mixers=("ada", "softmax"),
        channel="grove-kan", isolate_documents=True, qk_norm=is_normed,
    )  # fmt: skip
    model = KanLM(config, seed=3).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(draw(*weight.shape, seed=weight.numel()), alpha=0.1)
    tokens_BT = torch.randint(0, 256, (1, 72), generator=torch.Generator().manual_seed(5))
    tokens_BT[0, 68] = END_OF_DOCUMENT
    with torch.no_grad():
        wanted_BTV = model(tokens_BT)
    _, state = prefill(model, tokens_BT[:, :66])
    steps = GraphedSteps(model, state, capture=play_again)
    for place in range(66, 72):
        found_BV = steps(tokens_BT[:, place])
        torch.testing.assert_close(found_BV, wanted_BTV[:, place], rtol=1e-3, atol=1e-4)


def play_again(warm_up: Run, run: Run) -> Run:
    warm_up()
    return run


def test_only_a_single_row_on_a_gpu_is_served() -> None:
    h200 = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
    assert route_token(h200, dtype="bfloat16", rows=1).implementation == "triton"
    assert route_token(h200, dtype="bfloat16", rows=2).implementation == "torch"
    assert route_token(Machine(device="cpu"), dtype="float32", rows=1).implementation == "torch"
