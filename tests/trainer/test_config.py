"""Recipes and configs: what is accepted, and that every mistake is named at once, with its place."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kanctl.errors import BadInputError
from kanctl.trainer.config import RunConfig, apply_overrides, from_dict, load_recipe, to_dict
from kanctl.trainer.errors import RecipeInvalid
from kanctl.trainer.model_config import ModelConfig

GOOD = """\
name = "mine"

[model]
layers = 1
width = 32
heads = 2
context_tokens = 16
hidden = 32
grid_limit = 2

[data]
corpus = "stdlib"

[optim]
lr_peak = 0.1
warmup_steps = 1

[train]
steps = 10
sequences_per_rank = 1
eval_every_steps = 5
eval_sequences = 2
checkpoint_every_steps = 5

[engine]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    """The mistakes of a recipe as they are shown, one line each."""
    with pytest.raises(RecipeInvalid) as caught:
        load_recipe(write(folder, text))
    assert str(folder / "mine.toml") in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


def test_a_recipe_becomes_a_config_with_defaults(tmp_path: Path) -> None:
    run = load_recipe(write(tmp_path, GOOD))
    assert (run.name, run.seed, run.model.layers, run.model.grid_cells, run.model.vocab_size) == ("mine", 1, 1, 5, 257)
    assert run.engine.zero_stage == 1
    assert type(run.model.grid_limit) is float  # a whole number in the file is a number all the same
    assert run.model.head_size == 16


def test_config_json_gives_the_equal_config_back(tmp_path: Path) -> None:
    run = load_recipe(write(tmp_path, GOOD.replace("0.1", "0.1234567890123456789")))
    assert from_dict(json.loads(json.dumps(to_dict(run)))) == run


def test_configs_cannot_be_changed(tmp_path: Path) -> None:
    run = load_recipe(write(tmp_path, GOOD))
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.model.layers = 2  # type: ignore[misc]


def test_all_mistakes_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = GOOD.replace("width = 32", 'widht = "wide"').replace("steps = 10", "steps = 0").replace("0.1", '"fast"')
    text = text.replace('corpus = "stdlib"', 'corpus = "../etc"')
    assert mistakes(tmp_path, text) == [
        "line 5, model.widht: unknown key; the nearest is model.width",
        "line 3, model.width: missing; wanted a whole number of at least 1",
        "line 12, data.corpus: wanted text in quotes of 1 to 63 lower-case letters, digits and hyphens, found '../etc'",
        "line 15, optim.lr_peak: wanted a number above 0, found 'fast'",
        "line 19, train.steps: wanted a whole number of at least 1, found 0",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("width = 32", "width = 33", "line 6, model.heads: wanted a divisor of width 33, found 2"),
        ("width = 32", "width = 6", "line 6, model.heads: wanted an even width / heads for rotary positions, found"),
        ("layers = 1", "layers = true", "line 4, model.layers: wanted a whole number of at least 1, found True"),
        ("layers = 1", "layers = 1.0", "line 4, model.layers: wanted a whole number of at least 1, found 1.0"),
        ("lr_peak = 0.1", "lr_peak = nan", "line 15, optim.lr_peak: wanted a number above 0, found nan"),
        ("lr_peak = 0.1", "lr_peak = inf", "line 15, optim.lr_peak: wanted a number above 0, found inf"),
        ("warmup_steps = 1", "warmup_steps = 10", "line 16, optim.warmup_steps: wanted fewer than train.steps = 10"),
        ("[engine]", "[engine]\nzero_stage = 4", "line 26, engine.zero_stage: wanted one of 0, 1, 2, 3, found 4"),
        ("[engine]", "[engine]\nzero_stage = true", "line 26, engine.zero_stage: wanted one of 0, 1, 2, 3, found True"),
        ("[engine]", "[engin]", "line 25, engin: unknown key; the nearest is engine"),
        ("[engine]", "", "engine: missing; wanted section [engine]"),
        ("[engine]", "[engine]\nqqq = 1", "line 26, engine.qqq: unknown key; known here: zero_stage, dtype, device"),
        ('name = "mine"', 'name = "Mine!"', "line 1, name: wanted text in quotes of 1 to 47 lower-case letters"),
        ('name = "mine"', 'name = "mine"\nmodel = 3', "line 2, model: wanted a section [model], found 3"),
        ("layers = 1", "layers = ", "wanted TOML: Invalid value (at line 4, column 10)"),
    ],
)  # fmt: skip
def test_each_mistake_says_what_was_wanted_and_found(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = GOOD.replace(old, new)
    if "model = 3" in new:
        text = text.replace("[model]", "[modell]")
    found = mistakes(tmp_path, text)
    assert any(line.startswith(expected) for line in found), found


def test_a_recipe_error_is_bad_input_and_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        load_recipe(write(tmp_path, GOOD.replace("layers", "layer")))
    assert caught.value.exit_code == 2
    assert caught.value.next_step
    assert str(caught.value).count("\n") == 2  # a heading and one line for each of the two mistakes


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tny", "the nearest is tiny"), ("zzz", "shipped: "), ("no/such.toml", "found none at no/such.toml")],
)
def test_a_recipe_that_is_nowhere_is_named(name: str, expected: str) -> None:
    with pytest.raises(RecipeInvalid, match=expected):
        load_recipe(name)


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(RecipeInvalid, match="wanted UTF-8 text, found byte 0xff"):
        load_recipe(path)


def test_overrides_replace_values(tmp_path: Path) -> None:
    run = load_recipe(write(tmp_path, GOOD))
    changed = apply_overrides(run, ["train.steps=100", "optim.lr_peak=1e-3", "data.corpus=other", 'name="new"'])
    assert (changed.train.steps, changed.optim.lr_peak, changed.data.corpus, changed.name) == (
        100,
        1e-3,
        "other",
        "new",
    )
    assert changed.model == run.model
    assert apply_overrides(run, []) == run


def test_all_wrong_overrides_are_reported_at_once(tmp_path: Path) -> None:
    run = load_recipe(write(tmp_path, GOOD))
    with pytest.raises(RecipeInvalid) as caught:
        apply_overrides(run, ["train.stps=1", "modle.width=8", "steps", "seed.x=1", "engine.dtype=float16"])
    assert [str(problem) for problem in caught.value.problems] == [
        "wanted KEY=VALUE like train.steps=100, found 'steps'",
        "seed.x: seed is a value, not a section",
        "modle: unknown key; the nearest is model",
        "train.stps: unknown key; the nearest is train.steps",
        "engine.dtype: wanted one of 'float32', 'bfloat16', found 'float16'",
    ]


def test_an_override_cannot_smuggle_in_a_second_line(tmp_path: Path) -> None:
    run = load_recipe(write(tmp_path, GOOD))
    with pytest.raises(RecipeInvalid, match="wanted a whole number"):
        apply_overrides(run, ["train.steps=5\nseed=3"])


def test_configs_made_in_code_are_checked_too() -> None:
    with pytest.raises(RecipeInvalid, match="layers: wanted a whole number of at least 1, found 0"):
        ModelConfig(layers=0, width=32, heads=2, context_tokens=16, hidden=32)


def test_a_config_json_of_another_version_names_the_file() -> None:
    with pytest.raises(RecipeInvalid, match=r"^run/config.json: "):
        from_dict({"name": "x", "extra": {}}, "run/config.json")


def test_reading_recipes_loads_no_torch() -> None:
    code = "import sys, kanctl.trainer.config, kanctl.trainer.cost; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_field_has_a_type_that_the_reader_knows() -> None:
    tree = to_dict(load_recipe("tiny"))
    assert set(tree) == {field.name for field in dataclasses.fields(RunConfig)}
    assert from_dict(tree) == load_recipe("tiny")
