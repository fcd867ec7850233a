"""docs/training.md against the code: every recipe key with its default, every verb, every record."""

import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from kanctl.cli.commands.train import app
from kanctl.trainer.config import RunConfig


@pytest.fixture(scope="module")
def page(project_root: Path) -> str:
    return (project_root / "docs" / "training.md").read_text()


def keys(kind: type, prefix: str = "") -> dict[str, str]:
    """Each key of a recipe with its default as the page writes it; none: an empty text."""
    found = {}
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = hints[field.name]
        if is_dataclass(inner) and isinstance(inner, type):
            found |= keys(inner, f"{prefix}{field.name}.")
        else:
            # A list of TOML is a tuple here, and a truth has a small letter there.
            written = list(field.default) if isinstance(field.default, tuple) else field.default
            text = str(written).lower() if isinstance(written, bool) else repr(written).replace("'", '"')
            default = "" if field.default is MISSING else text
            found[f"{prefix}{field.name}"] = default
    return found


def test_every_recipe_key_is_explained_with_its_default(page: str) -> None:
    section = page.partition("\n## Recipes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \| (.*?) ?\| (.+) \|$", section, re.MULTILINE)
    assert {key: default.strip() for key, default, _ in rows} == keys(RunConfig)
    assert all(meaning.strip() for _, _, meaning in rows)


def test_every_verb_is_listed_with_an_example(page: str) -> None:
    section = page.partition("\n## Verbs\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z]+)` \| .+ \| `kanctl train ([a-z]+).*` \|$", section, re.MULTILINE)
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert {verb for verb, _ in rows} == commands
    assert all(verb == example for verb, example in rows)
