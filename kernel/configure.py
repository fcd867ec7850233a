"""From requests to a .config, by the kernel's own tools: alldefconfig with the requests, then olddefconfig.

The base is alldefconfig, never allnoconfig: on 6.12 allnoconfig silently leaves out 17 of 17 CPU mitigations.
An edge file: it runs make in a folder beside the tree, never in it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kanctl import programs

from .dotconfig import render_line
from .fragment import Request
from .source import SourceTree
from .toolchain import tool_settings

# Program -> Debian package, for `make olddefconfig` alone.
CONFIG_TOOLS = {"make": "make", "gcc": "gcc", "flex": "flex", "bison": "bison"}


def configure(
    tree: SourceTree, output: Path, requests: Mapping[str, Request], fixed: Mapping[str, str] | None = None
) -> str:
    """The full .config for the requests, left in `output`/.config, and its text.

    `fixed` are lines of the build itself, such as CONFIG_LOCALVERSION; they stand in no fragment.

    Raises:
        MissingToolError: a program is missing, with the line that installs it.
        ProgramFailed: the kernel's own tools refused the tree.
    """
    programs.require(CONFIG_TOOLS, "configuring a kernel")
    output.mkdir(parents=True, exist_ok=True)
    wanted = output / "requested.config"
    values = {symbol: request.value for symbol, request in requests.items()} | dict(fixed or {})
    wanted.write_text("".join(f"{render_line(symbol, value)}\n" for symbol, value in values.items()))
    tools = tool_settings(values)
    make(tree, output, ["alldefconfig"], tools | {"KCONFIG_ALLCONFIG": str(wanted)})
    make(tree, output, ["olddefconfig"], tools)
    return (output / ".config").read_text()


def make(tree: SourceTree, output: Path, targets: Sequence[str], variables: Mapping[str, str]) -> str:
    """Run one short target of the kernel's Makefile with its output elsewhere."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    return programs.run(["make", "-s", "-C", str(tree.path), f"O={output.resolve()}", *settings, *targets])
