"""From a tree of plain values to frozen dataclasses, with every mistake found in one pass.

Knows types, ranges and nearest names; knows nothing of what the fields mean (config.py) or of files.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from dataclasses import replace as replace_fields
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from .errors import Problem, RecipeInvalid

Config = TypeVar("Config")

WORDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed values of a number: from `least` (or above `above`) to `most` (or below `below`), always finite."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range; never for NaN and infinities."""
        return math.isfinite(value) and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        words = {"of at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{word} {limit:g}" for word, limit in words.items() if math.isfinite(limit))


@dataclass(frozen=True, slots=True)
class Pattern:
    """Text that a whole-string regular expression accepts, and how to say that in words."""

    expression: str
    words: str


def check_ranges(config: object) -> None:
    """Raise RecipeInvalid with every field of a config whose value is outside its declared range."""
    hints = get_type_hints(type(config), include_extras=True)
    problems = [
        Problem(key=name, text=f"wanted {_wanted(hint)}, found {value!r}")
        for name, hint in hints.items()
        for value in [getattr(config, name)]
        if not is_dataclass(value) and not _accepts(hint, value)
    ]
    if problems:
        raise RecipeInvalid(type(config).__name__, problems)


def build(kind: type[Config], tree: Mapping[str, object], source: str) -> Config:
    """One config of class `kind` from nested mappings, with every mistake in all its sections.

    `source` names the file or option in the message. Raises RecipeInvalid.
    """
    problems: list[Problem] = []
    config = _build(kind, tree, "", problems)
    if config is None or problems:
        raise RecipeInvalid(source, problems)
    return config


def _build(kind: type[Config], tree: Mapping[str, object], prefix: str, problems: list[Problem]) -> Config | None:
    """The config, or None after adding the reasons why there is none to `problems`."""
    before = len(problems)
    hints = get_type_hints(kind, include_extras=True)
    problems += _unknown_keys(kind, tree, prefix)
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name, hint = field.name, hints[field.name]
        key = prefix + name
        if name not in tree:
            if not _has_default(field):
                wanted = f"section [{key}]" if is_dataclass(hint) else _wanted(hint)
                problems.append(Problem(key=key, text=f"missing; wanted {wanted}"))
        elif is_dataclass(hint):
            section = tree[name]
            if isinstance(section, Mapping):
                values[name] = _build(cast(type[Any], hint), section, f"{key}.", problems)
            else:
                problems.append(Problem(key=key, text=f"wanted a section [{key}], found {section!r}"))
        else:
            value = _plain(hint, tree[name])
            if not _accepts(hint, value):
                problems.append(Problem(key=key, text=f"wanted {_wanted(hint)}, found {value!r}"))
            values[name] = value
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except RecipeInvalid as error:
        problems += [replace_fields(problem, key=prefix + problem.key) for problem in error.problems]
        return None


def _has_default(field: Any) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _unknown_keys(kind: type, tree: Mapping[str, object], prefix: str) -> Iterator[Problem]:
    known = [field.name for field in fields(kind)]
    for name in tree:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
            hint = f"the nearest is {prefix}{near[0]}" if near else f"known here: {', '.join(known)}"
            yield Problem(key=f"{prefix}{name}", text=f"unknown key; {hint}")


def _plain(hint: Any, value: object) -> object:
    """A whole number where any number is wanted is one; a list of TOML or JSON is a tuple."""
    if _base(hint) is float and type(value) is int:
        return float(value)
    return tuple(value) if _item(hint) is not None and type(value) is list else value


def _item(hint: Any) -> Any:
    """What a list holds, None for what is no list."""
    base = _base(hint)
    return get_args(base)[0] if get_origin(base) is tuple else None


def _base(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _marks(hint: Any) -> Sequence[object]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _accepts(hint: Any, value: Any) -> bool:
    base, item = _base(hint), _item(hint)
    if item is not None:
        return type(value) is tuple and len(value) > 0 and all(_accepts(item, each) for each in value)
    if get_origin(base) is Literal:
        return type(value) in {type(choice) for choice in get_args(base)} and value in get_args(base)
    if type(value) is not base:
        return False
    for mark in _marks(hint):
        if isinstance(mark, Range) and not mark.holds(value):
            return False
        if isinstance(mark, Pattern) and not re.fullmatch(mark.expression, value):
            return False
    return base is not float or math.isfinite(value)


def _wanted(hint: Any) -> str:
    base, item = _base(hint), _item(hint)
    if item is not None:
        return f"a list of at least one, each {_wanted(item)}"
    if get_origin(base) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(base))
    marks = [mark.words if isinstance(mark, Pattern) else str(mark) for mark in _marks(hint)]
    return " ".join([WORDS[base], *marks])
