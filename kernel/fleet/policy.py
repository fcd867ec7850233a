"""The policy of the module resolver as values; read from policy.toml, where every entry carries its reason."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .aliases import module_name

FILE = Path(__file__).parent / "policy.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is added, refused and given up whatever the devices say."""

    always: Mapping[str, str]
    deny: Mapping[str, str]
    children: Mapping[str, tuple[str, ...]]
    may_lose: Mapping[str, str]
    builtin: Mapping[str, str]
    symbols: Mapping[str, str]


def read_policy(path: Path = FILE) -> Policy:
    """The policy of a file; module names in the kernel's spelling."""
    table = tomllib.loads(path.read_text())
    return Policy(
        always={module_name(name): reason for name, reason in table["always"].items()},
        deny={module_name(name): reason for name, reason in table["deny"].items()},
        children={module_name(name): tuple(map(module_name, rows)) for name, rows in table["children"].items()},
        may_lose={module_name(name): reason for name, reason in table["may_lose"].items()},
        builtin=table["builtin"],
        symbols={module_name(name): symbol for name, symbol in table["symbols"].items()},
    )
