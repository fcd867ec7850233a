"""The source files and the command tree, as the guards look at them."""

import ast
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from kanctl.cli.app import GROUPS, build_app

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("cli", "inventory", "kernel", "lab", "monitoring", "playbooks", "trainer")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of code: its path below the checkout and its syntax tree."""

    path: Path
    tree: ast.Module

    def imports(self) -> Iterator[tuple[str, int, bool]]:
        """Every import at any depth: the full name imported, its line, and whether it was written relatively."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno, False) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = ["kanctl", *self.path.parent.parts]
                    base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
                yield from ((f"{base}.{alias.name}", node.lineno, node.level > 0) for alias in node.names)


def read_sources(*folders: str) -> list[Source]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Every file of code of the folders that the wheel carries."""
    return read_sources(*FOLDERS)


@pytest.fixture(scope="session")
def test_sources() -> list[Source]:
    return read_sources("tests")


@pytest.fixture(scope="session")
def commands() -> dict[str, Any]:
    """`GROUP VERB` -> its click command, for every group."""
    tree = get_command(build_app(list(GROUPS)))
    return {f"{group} {verb}": command for group in GROUPS for verb, command in tree.commands[group].commands.items()}


@pytest.fixture(scope="session")
def parse(commands: dict[str, Any]) -> Callable[[str], None]:
    """Parses a pasted line as the shell and the command would, without running it; raises when it would not parse."""

    def parse_line(line: str) -> None:
        words = shlex.split(line, comments=True)
        assert words[0] == "kanctl", line
        if words[1:] in (["--help"], ["--version"]):
            return
        name = " ".join(words[1:3])
        assert name in commands, f"{line}: there is no command {name}"
        commands[name].make_context(name, words[3:])

    return parse_line
