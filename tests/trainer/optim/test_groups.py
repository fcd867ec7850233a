"""Every weight is in one group, with the rule, decay and rate that are its own."""

import pytest

from kanctl.trainer.config import OptimConfig
from kanctl.trainer.errors import RecipeInvalid
from kanctl.trainer.model import KanLM
from kanctl.trainer.model_config import ModelConfig
from kanctl.trainer.optim import parameter_groups

KINDS = ["adamw", "muon", "kalman", "kalman-diagonal"]


def optim(kind: str = "adamw") -> OptimConfig:
    return OptimConfig(kind=kind, lr_peak=1e-3, warmup_steps=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_every_component_is_in_one_group(component: ModelConfig, kind: str) -> None:
    model = KanLM(component, seed=1)
    groups = parameter_groups(model, optim(kind))
    grouped = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters())


def test_vectors_and_the_logits_of_taps_do_not_decay_all_else_does(component: ModelConfig) -> None:
    model = KanLM(component, seed=1)
    decays = {id(w): group["weight_decay"] for group in parameter_groups(model, optim()) for w in group["params"]}
    for name, weight in model.named_parameters():
        assert (decays[id(weight)] > 0) == (weight.ndim >= 2 and "tap_logits" not in name), name


@pytest.mark.parametrize("kind", ["muon", "kalman"])
def test_a_matrix_is_a_group_of_its_own_and_says_its_shape(component: ModelConfig, kind: str) -> None:
    model = KanLM(component, seed=1)
    named = dict(model.named_parameters())
    own = [group for group in parameter_groups(model, optim(kind)) if "name" in group]
    assert own
    for group in own:
        [weight] = group["params"]
        assert weight is named[group["name"]]
        assert group["shape"] == tuple(weight.shape)
        assert weight.ndim - group["batch_dims"] >= 2


def test_embeddings_selectors_and_kernels_are_no_matrices_to_muon(component: ModelConfig) -> None:
    names = {group.get("name", "") for group in parameter_groups(KanLM(component, seed=1), optim("muon"))}
    assert not [name for name in names if any(part in name for part in ("embedding", "selector", "gate_ED", "tap_"))]


def test_factors_that_layers_share_learn_at_one_over_the_root_of_their_number(component: ModelConfig) -> None:
    model = KanLM(component, seed=1)
    scales = {id(w): group["lr_scale"] for group in parameter_groups(model, optim()) for w in group["params"]}
    for name, weight in model.named_parameters():
        assert scales[id(weight)] == (pytest.approx(2**-0.5) if name.startswith("factors.") else 1.0)


def test_a_kalman_filter_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(RecipeInvalid, match="beta1"):
        OptimConfig(kind="kalman", lr_peak=1e-3, warmup_steps=1, beta1=0.0)
