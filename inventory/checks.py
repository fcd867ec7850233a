"""What a value may be: small checks that answer with what is wanted, and the record of a variable that uses them."""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# One word of a host name; letters, digits and hyphens, so that nothing in it can reach a shell.
NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# A check gives what is wanted when the value is not that, else None.
Check = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One known variable: its check, the keys of its items if it is a list, and whether Ansible alone must read it.

    kanctl itself uses a variable that is not `may_be_template`, so it can stand neither in a template nor in a vault.
    """

    check: Check
    may_be_template: bool = True
    item_keys: Mapping[str, Check] | None = None
    required_keys: tuple[str, ...] = ()


def is_template(value: object) -> bool:
    """True for values that only Ansible can compute."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def whole_number(unit: str, least: int, most: int) -> Check:
    """A whole number of a unit that its variable's name tells."""

    def check(value: object) -> str | None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return None if is_whole and least <= value <= most else f"a whole number {least} to {most}{unit}"  # type: ignore[operator]

    return check


def text(pattern: str, wanted: str) -> Check:
    """Text that matches a pattern from its first to its last character."""

    def check(value: object) -> str | None:
        return None if isinstance(value, str) and re.fullmatch(pattern, value) else wanted

    return check


def address(value: object) -> str | None:
    """An IPv4 or IPv6 address, or a host name; digits and points alone are an address or a slip of the finger."""
    if not isinstance(value, str):
        return "an address or a host name"
    if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.:]*", value):
        try:
            ipaddress.ip_address(value)
        except ValueError:
            return "an address (its port goes into ansible_port)"
        return None
    words = value.removesuffix(".").split(".")
    is_name = len(value) <= 253 and all(NODE_NAME.fullmatch(word) for word in words)
    return None if is_name else "an address or a host name"


def own_file(value: object) -> str | None:
    """A readable file of this machine; absolute, since Ansible's working folder is not the user's."""
    # os.path answers False where pathlib raises: an unknown ~user, a folder that may not be entered.
    path = os.path.expanduser(value) if isinstance(value, str) else ""
    is_file = os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.R_OK)
    return None if is_file else "the path of a file on this machine that you may read, beginning with / or ~/"


LIST: Check = lambda value: None if isinstance(value, list) else "a list (`- ` lines)"  # noqa: E731  # one of a table
