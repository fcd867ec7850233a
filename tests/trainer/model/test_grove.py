"""KalmaGrove as a layer: its start, its even load, its exactness in narrow models."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.model.grove import GatedSubnets, Grove, KanSubnets
from kanctl.trainer.ops.bspline import SplineGrid
from kanctl.trainer.ops.grove.reference import grove_reference

WIDTH, HIDDEN, EXPERTS = 8, 6, 4


def grove(kind: str, active: int = 2, **settings) -> Grove:
    made = Grove(WIDTH, subnets(kind), experts=EXPERTS, active=active, selector_rank=3, **settings)
    made.start(torch.Generator().manual_seed(1), 1.0)
    return made


def subnets(kind: str) -> KanSubnets | GatedSubnets:
    return KanSubnets(EXPERTS, WIDTH, HIDDEN, SplineGrid()) if kind == "kan" else GatedSubnets(EXPERTS, WIDTH, HIDDEN)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_values_and_gradients_are_those_of_every_subnet_masked(kind: str) -> None:
    made, x = grove(kind).double(), inputs(3, 7)
    made.gate_ED.data.normal_(generator=torch.Generator().manual_seed(3))

    def run(expert: int, x: Tensor) -> Tensor:
        """All rows are of one expert."""
        return made.subnets(x, len(x) * (torch.arange(EXPERTS) >= expert).int())

    gates = (made.selector_ErD, made.gate_ED, made.gate_bias_E, torch.zeros(EXPERTS).double())
    wanted = grove_reference(x.flatten(0, 1), *gates, 2, run).view(3, 7, WIDTH)
    found = made(x)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    weights = list(made.parameters())
    slopes = [torch.autograd.grad(out.square().sum(), weights) for out in (found, wanted)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_bfloat16_stays_near_float64(kind: str) -> None:
    made, x = grove(kind, active=EXPERTS).double(), inputs(40)
    exact = made(x)
    narrow = made.bfloat16()(x.bfloat16())
    assert narrow.dtype == torch.bfloat16
    assert (narrow.double() - exact).norm() < 0.05 * exact.norm()


def test_selectors_start_orthonormal_and_gates_nearly_open() -> None:
    made = grove("mlp")
    gram_Err = made.selector_ErD @ made.selector_ErD.transpose(1, 2)
    torch.testing.assert_close(gram_Err, torch.eye(3).expand(EXPERTS, 3, 3))
    assert torch.equal(made.gate_ED, torch.zeros(EXPERTS, WIDTH))
    assert torch.equal(made.gate_bias_E, torch.full((EXPERTS,), 2.0))


def test_balancing_evens_out_the_load() -> None:
    made = grove("mlp", active=1, balance_rate=0.02)
    # One selector sees more of every token than the others.
    x = inputs(400).float() + 2 * made.selector_ErD[0].sum(0)

    def most_loaded() -> float:
        counts = torch.bincount(made.choice(x).expert_Nk.flatten(), minlength=EXPERTS)
        return counts.max().item() / counts.sum().item()

    before = most_loaded()
    for _ in range(60):
        made(x)
        made.update_balance()
    assert before > 0.6
    assert most_loaded() < 0.4


def test_offsets_are_counted_over_all_ranks_and_survive_a_narrow_model() -> None:
    made = grove("mlp", active=1, balance_rate=1e-3)
    made.load_E.copy_(torch.tensor([10, 0, 0, 0]))

    def add_up(load_E: Tensor) -> None:
        load_E += torch.tensor([0, 0, 30, 0])

    made.update_balance(add_up)
    # The mean over both ranks is 10: the first expert is neither raised nor lowered.
    assert made.balance_ticks_E.tolist() == [0, 1, -1, 1]
    made.balance_ticks_E.fill_(4097)
    assert made.bfloat16().balance_ticks_E.tolist() == [4097] * EXPERTS
    assert "balance_ticks_E" in made.state_dict()
    assert "load_E" not in made.state_dict()


def test_the_load_is_counted_in_training_alone() -> None:
    made = grove("kan").eval()
    made(inputs(9).float())
    assert made.load_E.sum() == 0
    made.train()(inputs(9).float())
    with torch.no_grad():
        made(inputs(9).float())
    assert made.load_E.sum() == 18


@pytest.mark.parametrize(("active", "rank"), [(0, 3), (5, 3), (1, 0), (1, 9)])
def test_settings_out_of_range_are_refused(active: int, rank: int) -> None:
    with pytest.raises(ValueError, match=f"found {active} of 4 and rank {rank}"):
        Grove(WIDTH, subnets("mlp"), experts=EXPERTS, active=active, selector_rank=rank)
