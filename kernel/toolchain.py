"""Which optional tools a kernel's makefiles may see, so that a configuration does not depend on what a machine has.

Kconfig asks for the versions of rustc and pahole and writes them into .config: two machines with the same compiler
would give two kernels. An edge file, but for reading one file pure.
"""

from collections.abc import Mapping
from pathlib import Path

from . import dotconfig

# The kernel's scripts take a program that is not there as version 0.
ABSENT = "kanctl-leaves-it-out"
# Rust has no part in these kernels; pahole makes BTF and nothing else.
BTF = "CONFIG_DEBUG_INFO_BTF"


def tool_settings(values: Mapping[str, str]) -> dict[str, str]:
    """Variables for every call of make; `values` are symbols that are requested, or set."""
    settings = {"RUSTC": ABSENT, "BINDGEN": ABSENT}
    return settings if values.get(BTF) == "y" else settings | {"PAHOLE": ABSENT}


def tool_words(output: Path) -> list[str]:
    """The same as words of make's command line, for a build folder with its .config."""
    settings = tool_settings(dotconfig.parse((output / ".config").read_text()))
    return [f"{name}={value}" for name, value in settings.items()]
