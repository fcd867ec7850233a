"""Muon's directions are torch's, for weights of any number of dims."""

import pytest
import torch
from torch import Tensor, nn

from kanctl.trainer.optim.muon import muon_direction, orthogonal


def group(shape: tuple[int, ...], batch_dims: int = 0) -> dict[str, object]:
    return {"shape": shape, "batch_dims": batch_dims, "momentum": 0.95}


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 11), (1, 4)])
def test_steps_are_those_of_torchs_muon(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(shape), nn.Parameter(torch.empty(shape))
    theirs.data.copy_(ours)
    muon = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    state: dict[str, Tensor] = {}
    for _ in range(4):
        slope = torch.randn(shape)
        theirs.grad = slope.clone()
        muon.step()
        ours -= 0.1 * muon_direction(group(shape), ours, slope, state)
    torch.testing.assert_close(ours, theirs.detach(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(16, 16), (24, 8)])
def test_a_direction_has_equal_singular_values_and_adamws_size(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    direction = orthogonal(torch.randn(shape) * 1e-4)
    values = torch.linalg.svdvals(direction) / (0.2 * max(shape) ** 0.5)
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert direction.square().mean().sqrt() == pytest.approx(0.2, rel=0.25)


def test_each_expert_is_a_matrix_of_its_own() -> None:
    torch.manual_seed(0)
    slope_EJIO = torch.randn(3, 2, 4, 5)
    whole = muon_direction(group((3, 2, 4, 5), 1), slope_EJIO, slope_EJIO, {})
    for expert in range(3):
        alone = muon_direction(group((2, 4, 5)), slope_EJIO[expert], slope_EJIO[expert], {})
        torch.testing.assert_close(whole[expert], alone)


def test_no_gradient_gives_no_direction() -> None:
    assert not muon_direction(group((4, 3)), torch.ones(4, 3), torch.zeros(4, 3), {}).any()
