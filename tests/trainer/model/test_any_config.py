"""Any model that a recipe may ask for either is refused when the recipe is read, or builds, runs and learns."""

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanctl.trainer.errors import RecipeInvalid
from kanctl.trainer.model import KanLM, next_token_loss
from kanctl.trainer.model_config import AdaConfig, GroveConfig, ModelConfig, MultiresConfig

SMALL = st.integers(1, 9)
MIXERS = st.lists(st.sampled_from(["softmax", "ada", "multires", "kalman"]), min_size=1, max_size=3).map(tuple)
LEVELS = st.lists(st.integers(2, 5), min_size=1, max_size=2).map(tuple)
ADA = st.fixed_dictionaries({"window": SMALL, "decay": st.sampled_from(["fixed", "data"]), "chunk": SMALL})
MULTIRES = st.fixed_dictionaries({"window": SMALL, "levels": LEVELS, "fuse": st.sampled_from(["softmax", "sum"])})
GROVE = st.fixed_dictionaries({"experts": SMALL, "active": st.integers(1, 4), "selector_rank": st.integers(1, 4)})
MODEL = st.fixed_dictionaries(
    {
        "layers": st.integers(1, 3),
        "width": st.sampled_from([2, 4, 8, 12]),
        "heads": st.sampled_from([1, 1, 2, 3]),
        "context_tokens": st.integers(2, 9),
        "hidden": SMALL,
    },
    optional={
        "mixers": MIXERS,
        "channel": st.sampled_from(["mlp", "kan", "grove", "grove-kan"]),
        "grid_cells": SMALL,
        "edge_form": st.sampled_from(["dense", "cell"]),
        "qk_norm": st.booleans(),
        "knowledge": st.booleans(),
        "isolate_documents": st.booleans(),
        "factor_rank": st.sampled_from([0, 0, 0, 1, 5]),
        "group_order": st.sampled_from([1, 1, 1, 2]),
        "reversible": st.booleans(),
    },
)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(model=MODEL, ada=ADA, multires=MULTIRES, grove=GROVE)
def test_a_model_is_refused_with_a_reason_or_builds_and_has_gradients(
    model: dict[str, Any], ada: dict[str, Any], multires: dict[str, Any], grove: dict[str, Any]
) -> None:
    parts = {"ada": AdaConfig(**ada), "multires": MultiresConfig(**multires)}
    try:
        config = ModelConfig(**model, **parts, grove=GroveConfig(**grove))
    except RecipeInvalid as error:
        refusals = [problem.text for problem in error.problems]
    else:
        refusals = []
        require_it_learns(config)
    assert all("wanted" in text and "found" in text for text in refusals)


def require_it_learns(config: ModelConfig) -> None:
    network = KanLM(config, seed=1)
    tokens_BT = torch.randint(0, 257, (2, config.context_tokens + 1), generator=torch.Generator().manual_seed(2))
    loss = next_token_loss(network(tokens_BT[:, :-1]), tokens_BT[:, 1:])
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
