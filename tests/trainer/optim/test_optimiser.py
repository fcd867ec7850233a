"""One optimiser, many rules: what it does to a small model beside what torch and arithmetic say."""

import copy

import pytest
import torch
from torch import Tensor

from kanctl.trainer.config import OptimConfig, RunConfig
from kanctl.trainer.model import KanLM, next_token_loss
from kanctl.trainer.optim import Optimiser, make_optimiser

TOKENS_BT = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))


def optim(kind: str, **other: float) -> OptimConfig:
    return OptimConfig(kind=kind, lr_peak=1e-2, warmup_steps=1, **other)  # type: ignore[arg-type]


def train(model: KanLM, optimiser: torch.optim.Optimizer, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = next_token_loss(model(TOKENS_BT[:, :-1]), TOKENS_BT[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def weights(model: KanLM) -> list[Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def test_adamw_is_torchs_to_the_last_bit(micro_config: RunConfig) -> None:
    ours, theirs = (KanLM(micro_config.model, seed=1) for _ in range(2))
    groups = [
        {"params": [w for w in theirs.parameters() if w.ndim >= 2], "weight_decay": 0.1},
        {"params": [w for w in theirs.parameters() if w.ndim < 2], "weight_decay": 0.0},
    ]
    losses = train(theirs, torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95)), 4)
    if any("tap_logits" in name for name, _ in ours.named_parameters()):
        pytest.fail("the micro model has taps, which AdamW here would decay")
    assert train(ours, make_optimiser(ours, optim("adamw")), 4) == losses
    assert all(torch.equal(*pair) for pair in zip(weights(ours), weights(theirs), strict=True))


@pytest.mark.parametrize("kind", ["adamw", "muon", "kalman", "kalman-diagonal"])
def test_a_state_taken_up_goes_on_to_the_last_bit(micro_config: RunConfig, kind: str) -> None:
    first = KanLM(micro_config.model, seed=1).train()
    optimiser = make_optimiser(first, optim(kind, refresh_steps=3))
    losses = train(first, optimiser, 4)
    second = KanLM(micro_config.model, seed=2).train()
    second.load_state_dict(first.state_dict())
    resumed = make_optimiser(second, optim(kind, refresh_steps=3))
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    went_on = train(first, optimiser, 5)
    assert train(second, resumed, 5) == went_on
    assert went_on[-1] < losses[0]


@pytest.mark.parametrize("kind", ["muon", "kalman", "kalman-diagonal"])
def test_at_rate_zero_nothing_moves(micro_config: RunConfig, kind: str) -> None:
    model = KanLM(micro_config.model, seed=1)
    before = weights(model)
    optimiser = make_optimiser(model, optim(kind))
    optimiser.set_rate(0.0)
    train(model, optimiser, 2)
    assert all(torch.equal(*pair) for pair in zip(before, weights(model), strict=True))


def test_weights_without_gradient_only_decay(micro_config: RunConfig) -> None:
    model = KanLM(micro_config.model, seed=1)
    before = dict(zip([name for name, _ in model.named_parameters()], weights(model), strict=True))
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    make_optimiser(model, optim("muon", weight_decay=0.5)).step()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] * (1 - 0.5e-2 if weight.ndim >= 2 else 1))


def test_looks_come_at_every_step_at_first_and_count_alike(micro_config: RunConfig) -> None:
    model = KanLM(micro_config.model, seed=1).train()
    optimiser = make_optimiser(model, optim("kalman", refresh_steps=4, forgetting=0.6))
    sums = kept = torch.zeros(())
    for step in range(1, 4):
        train(model, optimiser, 1)
        sums = sums + newest_moment(optimiser)
        # A third is less than the 0.4 that are forgotten.
        wanted = sums / step if step < 3 else kept * 0.6 + newest_moment(optimiser) * 0.4
        kept = first_moment(optimiser)
        torch.testing.assert_close(kept, wanted)


def test_looks_come_less_often_later_down_to_every_so_many_steps(micro_config: RunConfig) -> None:
    model = KanLM(micro_config.model, seed=1)
    optimiser = make_optimiser(model, optim("kalman", refresh_steps=4))
    looks = []
    for step in range(64):
        looks += [step] if optimiser.is_collecting else []
        optimiser.advance()
    assert looks == [*range(10), *range(10, 20, 2), *range(21, 30, 3), *range(32, 64, 4)]


def test_a_closure_is_refused(micro_config: RunConfig) -> None:
    with pytest.raises(ValueError, match="closure"):
        make_optimiser(KanLM(micro_config.model, seed=1), optim("muon")).step(lambda: 0.0)


def matrix_group(optimiser: Optimiser) -> dict[str, object]:
    return next(group for group in optimiser.param_groups if group["rule"] == "kalman-matrix")


def first_moment(optimiser: Optimiser) -> Tensor:
    [weight] = matrix_group(optimiser)["params"]  # type: ignore[misc]
    return optimiser.state[weight]["moment"].clone()


def newest_moment(optimiser: Optimiser) -> Tensor:
    assert optimiser._moments is not None
    moment_SCC = optimiser._moments.newest(str(matrix_group(optimiser)["name"]))
    assert moment_SCC is not None
    return moment_SCC.clone()
