"""Which variables an inventory may hold, and what each may be: kanctl's own, Ansible's for the connection, the roles'.

Names that begin with `site_` are the team's own and are not checked.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .yaml_lines import Opaque

OWN_PREFIX = "site_"
NIC_KINDS = ("ethernet", "infiniband")

# A check gives what is wanted when the value is not that, else None.
Check = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One known variable: its check, and whether Ansible may compute it from a template."""

    check: Check
    may_be_template: bool = True


def is_template(value: object) -> bool:
    """True for values that only Ansible can compute."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def known_variables(roles_dir: Path | None) -> dict[str, Variable]:
    """Every variable that may stand in an inventory: the tables below and the roles' argument specs."""
    return {**_KANCTL, **_ANSIBLE, **(_role_variables(roles_dir) if roles_dir else {})}


def check_variable(name: str, value: object, known: dict[str, Variable]) -> str | None:
    """What is wrong with a variable, None when nothing is."""
    if name.startswith(OWN_PREFIX):
        return None
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"the nearest known name is {near[0]}" if near else f"names of your own begin with {OWN_PREFIX}"
        return f"unknown variable {name}; {hint}"
    if isinstance(value, Opaque):
        return None
    if is_template(value):
        return None if known[name].may_be_template else f"{name}: wanted a plain value, found the template {value!r}"
    wanted = known[name].check(value)
    return f"{name}: wanted {wanted}, found {value!r}" if wanted else None


def _whole(unit: str, least: int, most: int) -> Check:
    def check(value: object) -> str | None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return None if is_whole and least <= value <= most else f"a whole number {least} to {most}{unit}"  # type: ignore[operator]

    return check


def _text(pattern: str, wanted: str) -> Check:
    def check(value: object) -> str | None:
        return None if isinstance(value, str) and re.fullmatch(pattern, value) else wanted

    return check


def _existing_file(value: object) -> str | None:
    is_file = isinstance(value, str) and Path(value).expanduser().is_file()
    return None if is_file else "the path of a file on this machine"


def _items(wanted: str, keys: dict[str, Check], required: tuple[str, ...]) -> Check:
    """A list of small mappings, each key with its own check."""

    def check(value: object) -> str | None:
        if not isinstance(value, list):
            return wanted
        for item in value:
            if not isinstance(item, dict):
                return wanted
            for key in [*item, *required]:
                if key not in keys:
                    return f"{wanted}; {key} is none of {', '.join(keys)}"
                problem = keys[key](item.get(key))
                if problem:
                    return f"{key} as {problem}"
        return None

    return check


_GPU_KEYS: dict[str, Check] = {
    "model": _text(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}", "a model name such as NVIDIA H200"),
    "count": _whole(" (GPUs)", 1, 64),
    "memory_gib": _whole(" GiB of one GPU, without a unit", 1, 4096),
}
_NIC_KEYS: dict[str, Check] = {
    "name": _text(r"[A-Za-z0-9_.-]{1,15}", "an interface name such as eth0"),
    "speed_gbps": _whole(" Gbit/s, without a unit", 1, 10_000),
    "kind": lambda value: None if value in NIC_KINDS else " or ".join(NIC_KINDS),
}

_NAME_TEXT = "letters, digits and hyphens, at most 63"
_KANCTL: dict[str, Variable] = {
    "kanctl_cluster_name": Variable(check=_text(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", _NAME_TEXT), may_be_template=False),
    "kanctl_shared_dir": Variable(
        check=_text(r"/[A-Za-z0-9_./-]*", "an absolute path of letters, digits and _./-"), may_be_template=False
    ),
    "kanctl_known_hosts_file": Variable(check=_existing_file, may_be_template=False),
    "kanctl_gpus": Variable(
        check=_items("a list of {model, count, memory_gib}", _GPU_KEYS, ("model",)), may_be_template=False
    ),
    "kanctl_nics": Variable(
        check=_items("a list of {name, speed_gbps, kind}", _NIC_KEYS, ("name",)), may_be_template=False
    ),
    "kanctl_memory_gib": Variable(check=_whole(" GiB of main memory, without a unit", 1, 65536), may_be_template=False),
    "kanctl_recorded_hardware": Variable(
        check=_text(r"[A-Za-z0-9][A-Za-z0-9._-]*", "the name of a file of playbooks/recorded"), may_be_template=False
    ),
}

_ANY_TEXT = _text(r"(?s).*", "text")
_BOOL: Check = lambda value: None if isinstance(value, bool) else "true or false"  # noqa: E731  # one of a table of checks
_ANSIBLE: dict[str, Variable] = {
    "ansible_host": Variable(
        check=_text(r"[A-Za-z0-9][A-Za-z0-9.:-]*|[0-9A-Fa-f:]+", "an address or a host name"), may_be_template=False
    ),
    "ansible_port": Variable(check=_whole("", 1, 65535), may_be_template=False),
    "ansible_user": Variable(
        check=_text(r"[a-z_][a-z0-9_-]{0,31}", "a login of lower-case letters, digits, _ and -"), may_be_template=False
    ),
    "ansible_ssh_private_key_file": Variable(check=_existing_file, may_be_template=False),
    "ansible_become": Variable(check=_BOOL),
    **{
        name: Variable(check=_ANY_TEXT)
        for name in (
            "ansible_become_method",
            "ansible_become_password",
            "ansible_become_user",
            "ansible_connection",
            "ansible_python_interpreter",
            "ansible_ssh_args",
            "ansible_ssh_common_args",
            "ansible_ssh_extra_args",
        )
    },
}

_SPEC_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str, int, float), "text"),
    "path": ((str,), "a path"),
    "int": ((int,), "a whole number without a unit"),
    "float": ((int, float), "a number without a unit"),
    "bool": ((bool,), "true or false"),
    "list": ((list,), "a list"),
    "dict": ((dict,), "a mapping"),
}


def _role_variables(roles_dir: Path) -> dict[str, Variable]:
    """The public variables of all roles, from their argument specs."""
    found = {}
    for path in sorted(roles_dir.glob("*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for name, spec in specs["main"].get("options", {}).items():
            found[name] = Variable(check=_spec_check(spec))
    return found


def _spec_check(spec: dict[str, Any]) -> Check:
    types, wanted = _SPEC_TYPES.get(spec.get("type", "str"), ((object,), "a value"))
    choices = spec.get("choices")

    def check(value: object) -> str | None:
        if choices is not None and value not in choices:
            return f"one of {', '.join(map(str, choices))}"
        # A bool is an int to Python, and never what an int variable means.
        is_stray_bool = isinstance(value, bool) and bool not in types and object not in types
        return None if isinstance(value, types) and not is_stray_bool else wanted

    return check
