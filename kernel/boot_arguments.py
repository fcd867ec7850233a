"""kernel/cmdline/*.args as far as a bundle and its rules need them: what is sure before any node is known.

What a node really gets, with its isolated cores, is said by the filter of the role node_tuning; playbooks and kernel
never import one another, so there are two readers, and tests/kernel/test_cmdline.py holds them together.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .profile import FOLDER
from .version import satisfies

PLACEHOLDER = re.compile(r"\{[a-z0-9_]+\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument with what restricts it."""

    text: str
    versions: tuple[str, ...] = ()
    is_for_every_node: bool = True

    @property
    def has_placeholder(self) -> bool:
        """Whether its value comes from the inventory."""
        return bool(PLACEHOLDER.search(self.text))


def fixed_arguments(name: str, version: tuple[int, ...], folder: Path = FOLDER) -> list[str]:
    """The arguments of NAME.args that every node of this version gets: those that depend on no placeholder."""
    return [
        argument.text
        for argument in _read(folder / "cmdline" / f"{name}.args")
        if argument.is_for_every_node
        and not argument.has_placeholder
        and all(satisfies(version, condition) for condition in argument.versions)
    ]


def deferred_arguments(name: str, folder: Path = FOLDER) -> set[str]:
    """The arguments of NAME.args whose values come from the inventory, by the part before `=`."""
    found = (argument for argument in _read(folder / "cmdline" / f"{name}.args") if argument.has_placeholder)
    return {argument.text.partition("=")[0] for argument in found}


def _read(path: Path) -> Iterator[Argument]:
    comments: list[str] = []
    for line in map(str.strip, path.read_text().splitlines()):
        if line.startswith("#"):
            comments.append(line.lstrip("# "))
            continue
        if line:
            yield Argument(
                text=line,
                versions=tuple(text.partition(":")[2].strip() for text in comments if text.startswith("Kernel:")),
                is_for_every_node=not any(text.startswith("Only with:") for text in comments),
            )
        comments = []
