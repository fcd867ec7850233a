"""The variables of the roles, from the argument specs that Ansible itself checks them by on the node."""

from pathlib import Path
from typing import Any

import yaml

from .checks import LIST, Check, Variable, is_template

_SPEC_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str, int, float), "text"),
    "path": ((str,), "a path"),
    "int": ((int,), "a whole number without a unit"),
    "float": ((int, float), "a number without a unit"),
    "bool": ((bool,), "true or false"),
    "list": ((list,), "a list"),
    "dict": ((dict,), "a mapping"),
}


def role_variables(roles_dir: Path) -> dict[str, Variable]:
    """The public variables of all roles, from their argument specs."""
    found = {}
    for path in sorted(roles_dir.glob("*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for name, spec in specs["main"].get("options", {}).items():
            found[name] = _role_variable(spec)
    return found


def _role_variable(spec: dict[str, Any]) -> Variable:
    options = spec.get("options")
    if not options or spec.get("type") != "list":
        return Variable(check=_spec_check(spec))
    return Variable(
        check=LIST,
        item_keys={key: _spec_check(below) for key, below in options.items()},
        required_keys=tuple(key for key, below in options.items() if below.get("required")),
    )


def _spec_check(spec: dict[str, Any]) -> Check:
    """What Ansible's argument specs say of a value, without the conversions from text that Ansible would try."""
    kind = spec.get("type", "str")
    types, wanted = _SPEC_TYPES.get(kind, ((object,), "a value"))
    choices = spec.get("choices")
    if kind == "list":
        return _list_check(_spec_check({"type": spec.get("elements", "raw"), "choices": choices}))

    def check(value: object) -> str | None:
        # A bool is an int to Python, and never what another variable means.
        is_stray_bool = isinstance(value, bool) and bool not in types and object not in types
        is_wrong = not isinstance(value, types) or is_stray_bool or (choices is not None and value not in choices)
        if not is_wrong:
            return None
        hint = f" (text goes in quotes: YAML reads a bare on, off, yes or no as {str(value).lower()})"
        return (f"one of {', '.join(map(str, choices))}" if choices else wanted) + (
            hint if is_stray_bool and kind == "str" else ""
        )

    return check


def _list_check(of_each: Check) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return "a list (`- ` lines)"
        wrong = [wanted for item in value if not is_template(item) and (wanted := of_each(item))]
        return f"a list, each item {wrong[0]}" if wrong else None

    return check
