"""Small models of every kind, for the optimisers."""

import pytest

from kanctl.trainer.config import apply_overrides, load_recipe
from kanctl.trainer.model_config import ModelConfig
from kanctl.trainer.recipe_file import shipped_recipes

SMALL = ["model.layers=2", "model.width=16", "model.heads=2", "model.hidden=12", "model.context_tokens=32"]
COMPONENTS = [name for name, path in shipped_recipes().items() if path.parent.name == "components"]


@pytest.fixture(params=COMPONENTS)
def component(request: pytest.FixtureRequest) -> ModelConfig:
    """The model of each component's recipe, made small."""
    rank = ["model.factor_rank=4"] if request.param == "factors" else []
    return apply_overrides(load_recipe(request.param), [*SMALL, *rank]).model
