"""Each component's own recipe: one component switched on beside the baseline, and it learns."""

from dataclasses import asdict

import pytest
import torch

from kanctl.trainer.config import load_recipe
from kanctl.trainer.model import KanLM, next_token_loss
from kanctl.trainer.recipe_file import shipped_recipes

NAMES = [name for name, path in shipped_recipes().items() if path.parent.name == "components"]
# What a recipe may change of the baseline's model: its component, and the width that goes with it.
CHANGES = {
    "gpt": set(),
    "kan": {"channel", "qk_norm", "hidden"},
    "grove": {"channel", "qk_norm", "hidden", "grove"},
    "grove-kan": {"channel", "qk_norm", "hidden", "grove"},
    "ada": {"mixers", "qk_norm", "ada"},
    "multires": {"mixers", "qk_norm", "multires"},
    "kalman": {"mixers", "qk_norm"},
    "knowledge": {"knowledge", "qk_norm"},
    "factors": {"channel", "qk_norm", "hidden", "factor_rank"},
    "cyclic": {"channel", "qk_norm", "hidden", "group_order"},
    "reversible": {"reversible", "qk_norm"},
}


def test_each_component_has_a_recipe() -> None:
    assert set(NAMES) == set(CHANGES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_changes_its_component_and_nothing_else(name: str) -> None:
    recipe, baseline = (asdict(load_recipe(each)) for each in (name, "gpt"))
    assert {key for key in recipe["model"] if recipe["model"][key] != baseline["model"][key]} == CHANGES[name]
    for section in ("data", "optim", "train", "engine"):
        assert recipe[section] == baseline[section]


@pytest.mark.parametrize("name", NAMES)
def test_a_component_lowers_the_loss(name: str) -> None:
    run = load_recipe(name)
    model = KanLM(run.model, seed=run.seed).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=run.optim.lr_peak)
    text = b"def area(width, height):\n    return width * height\n"
    tokens_BT = torch.tensor([list(text), list(text[::-1])])
    losses = []
    for _ in range(8):
        loss = next_token_loss(model(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0
