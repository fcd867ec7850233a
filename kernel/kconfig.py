"""Why a symbol got the value that it has: reads a tree's Kconfig files with kconfiglib. The only file that imports it.

The kernel's own `make olddefconfig` decides the values (configure.py); this only explains them. kconfiglib 14.1.0
stopped before three additions to the language, which are put into its terms line by line here.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

from kanctl.programs import run

from .errors import ToolMissing

MODULES_LINE = re.compile(r"^\s+modules\s*$")
TRANSITIONAL_LINE = re.compile(r"^\s+transitional\s*$")
CONDITIONAL_DEPENDS = re.compile(r"^(\s+depends on )(.+?) if (.+)$")


class KconfigTree:
    """The symbols of one kernel version, with the values of one .config."""

    def __init__(self, source: Path, version: str, config: Path) -> None:
        """Parse a tree (about 4 s) and load a .config. Raises ToolMissing without kconfiglib."""
        with _environment(source, version):
            self._kconf = _parser()("Kconfig", warn=False)
        self._kconf.load_config(str(config))

    def has(self, symbol: str) -> bool:
        """Whether this version defines the symbol at all."""
        found = self._kconf.syms.get(_short(symbol))
        return found is not None and bool(found.nodes)

    def nearest(self, symbol: str) -> list[str]:
        """Up to three names that are spelled nearly so."""
        names = [name for name, found in self._kconf.syms.items() if found.nodes]
        return [f"CONFIG_{name}" for name in get_close_matches(_short(symbol), names, n=3, cutoff=0.8)]

    def selectors(self, symbol: str) -> list[str]:
        """What selects the symbol right now."""
        kconfiglib = library()
        found = self._kconf.syms[_short(symbol)]
        parts = kconfiglib.split_expr(found.rev_dep, kconfiglib.OR)
        return [kconfiglib.expr_str(part) for part in parts if kconfiglib.expr_value(part)]

    def unmet(self, symbol: str, wanted: str) -> list[str]:
        """The parts of the symbol's dependencies, and of its question's condition, that stand below `wanted`."""
        kconfiglib = library()
        found = self._kconf.syms[_short(symbol)]
        need = 2 if wanted == "y" or found.orig_type != kconfiglib.TRISTATE else 1
        expressions = [found.direct_dep, *(node.prompt[1] for node in found.nodes if node.prompt)]
        parts = [part for expression in expressions for part in kconfiglib.split_expr(expression, kconfiglib.AND)]
        low = [kconfiglib.expr_str(part) for part in parts if kconfiglib.expr_value(part) < need]
        return list(dict.fromkeys(low))

    def describe(self, symbol: str) -> dict[str, Any]:
        """What explains a value: type, whether there is a question, the choice that it belongs to, its range."""
        kconfiglib = library()
        found = self._kconf.syms[_short(symbol)]
        selection = found.choice.selection.name if found.choice and found.choice.selection else None
        ranges = [
            f"{low.str_value}..{high.str_value}"
            for low, high, condition in found.ranges
            if kconfiglib.expr_value(condition)
        ]
        return {
            "type": kconfiglib.TYPE_TO_STR[found.orig_type],
            "has_question": any(node.prompt for node in found.nodes),
            "chosen_instead": f"CONFIG_{selection}" if selection and selection != found.name else None,
            "range": ranges[0] if ranges else None,
        }

    def dependencies(self, symbol: str) -> Any:
        """The symbol's `depends on` as kconfiglib's expression; what kernel/fleet walks."""
        return self._kconf.syms[_short(symbol)].direct_dep

    def symbol(self, symbol: str) -> Any:
        """kconfiglib's own object of a symbol; None where this version has none."""
        found = self._kconf.syms.get(_short(symbol))
        return found if found is not None and found.nodes else None


def _short(symbol: str) -> str:
    return symbol.removeprefix("CONFIG_")


def modern_line(line: str) -> str:
    """One line of a Kconfig file in the words that kconfiglib 14.1.0 knows.

    `modules` was `option modules` before 5.13; `transitional` (6.18) marks a symbol that only old .configs name;
    `depends on A if B` (6.20) is `depends on !B || A`.
    """
    if MODULES_LINE.match(line):
        return "\toption modules\n"
    if TRANSITIONAL_LINE.match(line):
        return "\n"
    found = CONDITIONAL_DEPENDS.match(line.partition(" #")[0].rstrip())
    return f"{found.group(1)}!({found.group(3)}) || ({found.group(2)})\n" if found else line


def library() -> Any:
    """kconfiglib, untyped and so taken as it is. Raises ToolMissing."""
    try:
        return import_module("kconfiglib")
    except ImportError as error:
        raise ToolMissing("explaining a configuration needs kconfiglib", "pip install kconfiglib==14.1.0") from error


def _parser() -> Any:
    base = library().Kconfig

    class Parser(base):  # type: ignore[misc, valid-type]
        def _tokenize(self, s: str) -> Any:
            return super()._tokenize(modern_line(s))

    return Parser


@contextmanager
def _environment(source: Path, version: str) -> Iterator[None]:
    """The variables that the kernel's Makefile gives to Kconfig, for as long as the files are parsed."""
    values: Mapping[str, str] = {
        "srctree": str(source),
        "ARCH": "x86",
        "SRCARCH": "x86",
        "KERNELVERSION": version,
        "CC": "gcc",
        "LD": "ld",
        "AR": "ar",
        "NM": "nm",
        "OBJCOPY": "objcopy",
        "RUSTC": "rustc",
        "BINDGEN": "bindgen",
        "CLANG_FLAGS": "",
        "PAHOLE": "pahole",
        "CC_VERSION_TEXT": run(["gcc", "--version"]).splitlines()[0],
        "RUSTC_VERSION_TEXT": "",
        "PAHOLE_VERSION": "0",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
