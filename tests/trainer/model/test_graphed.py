"""Graphed steps give what ordinary steps give. Without a GPU a recording is the function itself, played again.

That shows what a graph would: the same Python values each time, the same tensors in the same places.
"""

import pytest
import torch

from kanctl.trainer.model import KanLM
from kanctl.trainer.model.decoding import prefill, step
from kanctl.trainer.model.graphed import GraphedSteps, Run, can_be_graphed, tensors_of
from kanctl.trainer.model.grove import Grove
from kanctl.trainer.model_config import ModelConfig, MultiresConfig
from kanctl.trainer.ops.route import Machine

PATTERNS = [("softmax",), ("ada",), ("kalman",), ("multires",), ("ada", "kalman", "multires", "softmax")]


def model_of(mixers: tuple[str, ...], channel: str = "mlp") -> KanLM:
    config = ModelConfig(
        layers=max(2, len(mixers)), width=16, heads=2, context_tokens=256, hidden=8,
        mixers=mixers, channel=channel, multires=MultiresConfig(window=5, levels=(4, 16)),
    )  # type: ignore[arg-type]  # fmt: skip
    return KanLM(config, seed=3).eval()


class Recorder:
    """Plays a function again, and counts."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, warm_up: Run, run: Run) -> Run:
        self.recorded += 1
        warm_up()
        return run


@pytest.mark.parametrize("mixers", PATTERNS, ids="-".join)
def test_graphed_steps_give_the_same_logits_through_growth_and_borders(mixers: tuple[str, ...]) -> None:
    model, recorder = model_of(mixers), Recorder()
    generator = torch.Generator().manual_seed(5)
    tokens_BT = torch.randint(0, 256, (2, 200), generator=generator)
    # A document ends in one row: its places begin anew there.
    tokens_BT[1, 90] = 256
    _, plain = prefill(model, tokens_BT[:, :9])
    _, state = prefill(model, tokens_BT[:, :9])
    steps = GraphedSteps(model, state, capture=recorder)
    for place in range(9, 200):
        wanted, plain = step(model, tokens_BT[:, place], plain)
        torch.testing.assert_close(steps(tokens_BT[:, place]), wanted, rtol=1e-5, atol=1e-5)
    # Caches hold 16, 32, 64, 128, 256 places; with fewer than 32 to go a recording does not pay.
    assert recorder.recorded == (2 if {"softmax", "multires"} & set(mixers) else 1)


def test_a_replay_makes_no_state_elsewhere() -> None:
    model = model_of(("ada", "softmax"))
    _, state = prefill(model, torch.randint(0, 256, (1, 70)))
    steps = GraphedSteps(model, state, capture=Recorder())
    steps(torch.tensor([1]))
    places = [tensor.data_ptr() for tensor in tensors_of(steps._state)]
    for token in range(5):
        steps(torch.tensor([token]))
        assert [tensor.data_ptr() for tensor in tensors_of(steps._state)] == places


def test_models_that_ask_the_host_are_not_graphed() -> None:
    # Nor is any model without a GPU.
    assert not can_be_graphed(model_of(("softmax",)), 1)


@pytest.mark.parametrize(
    ("channel", "dtype", "rows", "asks"),
    [
        ("grove", torch.float32, 4, False),
        ("grove", torch.float32, 5, True),
        ("grove", torch.bfloat16, 100, False),
        ("grove-kan", torch.float32, 100, False),
        ("grove-kan", torch.float64, 1, True),
    ],
)
def test_groves_ask_the_host_where_they_run_subnet_by_subnet(
    channel: str, dtype: torch.dtype, rows: int, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    h200 = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
    monkeypatch.setattr("kanctl.trainer.model.grove.machine_of", lambda device: h200)
    [grove, *_] = [each for each in model_of(("softmax",), channel).to(dtype).modules() if isinstance(each, Grove)]
    assert grove.asks_the_host(rows) is asks
