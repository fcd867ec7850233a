"""Small models whose edges can be looked at."""

from collections.abc import Callable

import pytest
import torch

from kanctl.trainer.config import apply_overrides, load_recipe
from kanctl.trainer.model import KanLM

SMALL = ["model.layers=2", "model.width=16", "model.heads=2", "model.hidden=8", "model.context_tokens=32"]


@pytest.fixture
def make_model() -> Callable[..., KanLM]:
    """A small model of a component's recipe, with changes."""

    def make(recipe: str, *changes: str) -> KanLM:
        return KanLM(apply_overrides(load_recipe(recipe), [*SMALL, *changes]).model, seed=1).eval()

    return make


@pytest.fixture
def tokens_WT() -> torch.Tensor:
    """Windows of 32 tokens and one."""
    return torch.randint(0, 256, (6, 33), generator=torch.Generator().manual_seed(0))
