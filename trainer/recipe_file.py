"""Finding and reading recipe files; what their keys mean is config.py's."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any

from .errors import Problem, RecipeInvalid

RECIPES_DIR = Path(__file__).parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with kanctl, by name; those of single components lie in a folder of their own."""
    return {path.stem: path for path in sorted(RECIPES_DIR.rglob("*.toml"))}


def find_recipe(path_or_name: str | Path) -> Path:
    """The file of a shipped recipe's name, or the path given. Raises RecipeInvalid when there is neither."""
    path = Path(path_or_name)
    shipped = shipped_recipes()
    if isinstance(path_or_name, str) and path_or_name in shipped:
        return shipped[path_or_name]
    if path.is_file():
        return path
    if path.suffix == ".toml" or len(path.parts) != 1:
        raise RecipeInvalid("recipe", [Problem(key="", text=f"wanted a file, found none at {path}")])
    near = difflib.get_close_matches(path.name, shipped, n=1)
    hint = f"the nearest is {near[0]}" if near else f"shipped: {', '.join(shipped)}"
    text = f"wanted a shipped recipe or the path of a TOML file, found {path.name!r}; {hint}"
    raise RecipeInvalid("recipe", [Problem(key="", text=text)])


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file and its tree. Raises RecipeInvalid."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        problem = Problem(key="", text=f"wanted a readable file, found: {error.strerror}")
    except UnicodeDecodeError as error:
        problem = Problem(key="", text=f"wanted UTF-8 text, found byte 0x{error.object[error.start]:02x}")
    except tomllib.TOMLDecodeError as error:
        problem = Problem(key="", text=f"wanted TOML: {error}")
    raise RecipeInvalid(f"recipe {path}", [problem])


def line_of(text: str, key: str) -> int | None:
    """The line, from 1, that sets a dotted key, else that of its section's header, else None.

    Reads the plain style of recipes: [section] headers and one `key = value` a line. A key in an inline table gets the
    line of its section.
    """
    section, best = "", None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            section = header[1] + "."
            found = header[1]
        elif entry := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line):
            found = section + entry[1]
        else:
            continue
        if found == key:
            return number
        if key.startswith(found + "."):
            best = number
    return best
