"""The shipped recipes: each loads, is explained, and fits its promise."""

from pathlib import Path

import pytest

from kanctl.trainer.config import load_recipe
from kanctl.trainer.cost import model_cost
from kanctl.trainer.errors import RecipeInvalid
from kanctl.trainer.recipe_file import shipped_recipes

NAMES = list(shipped_recipes())


def test_the_recipes_promised_are_shipped() -> None:
    assert {"tiny", "small", "base"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_shipped_recipe_loads_under_its_own_name(name: str) -> None:
    run = load_recipe(name)
    assert run.name == name
    assert load_recipe(shipped_recipes()[name]) == run


@pytest.mark.parametrize("name", NAMES)
def test_each_shipped_recipe_says_what_it_is_for_and_how_large_it_is(name: str) -> None:
    text = shipped_recipes()[name].read_text(encoding="utf-8")
    cost = model_cost(load_recipe(name).model)
    assert text.startswith("# ")
    assert f"{cost.parameters / 1e6:.1f} M parameters" in text


def test_tiny_runs_on_a_cpu_and_base_has_a_hundred_million_parameters() -> None:
    tiny, base = load_recipe("tiny"), load_recipe("base")
    assert tiny.engine.dtype == "float32"
    assert model_cost(tiny.model).parameters < 1e6
    assert model_cost(base.model).parameters > 1e8


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_in_a_copy_of_a_recipe_names_the_nearest(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    copy.write_text(shipped_recipes()[name].read_text(encoding="utf-8").replace("hidden", "hiden"))
    with pytest.raises(RecipeInvalid, match=r"model\.hiden: unknown key; the nearest is model\.hidden"):
        load_recipe(copy)
