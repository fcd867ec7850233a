"""The index of a reference kernel's modules: who depends on whom, what is built in, and what belongs to which symbol.

Reading is at the edge (`read_reference`); everything else is pure.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceUnavailable
from .aliases import AliasTable, module_name

SOFTDEP = re.compile(r"^softdep (\S+) (?:.*\b)?pre: ([^:]*?)(?: post:.*)?$")
OBJECT_LINE = re.compile(r"^obj-(?:\$\((CONFIG_\w+)\)|m|y)\s*[+:]?=\s*(.*)$")
# Folders of a tree whose modules no device needs.
SKIPPED = {("samples",), ("tools",), ("Documentation",)}
GUARD = re.compile(r"^(?:ifdef\s+|ifeq\s*\(\$\(|ifneq\s*\(\$\()(CONFIG_\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What is known of a kernel whose modules cover more than the fleet needs."""

    release: str
    aliases: AliasTable
    depends: Mapping[str, tuple[str, ...]]
    builtin: frozenset[str]
    symbols: Mapping[str, tuple[str, ...]]

    def closure(self, modules: Iterable[str]) -> dict[str, str]:
        """Module -> the module that needs it, for everything that the given ones need and that is not among them."""
        given = set(modules)
        needed: dict[str, str] = {}
        waiting = sorted(given)
        while waiting:
            name = waiting.pop()
            for other in self.depends.get(name, ()):
                # A soft dependency may name an alias (crc32c) that no module of that name answers.
                if other in self.depends and other not in given and other not in needed:
                    needed[other] = name
                    waiting.append(other)
        return needed


def read_reference(modules_dir: Path, tree: Path, release: str, exceptions: Mapping[str, str]) -> Reference:
    """Index an unpacked kernel image together with the Makefiles of its source. Raises SourceUnavailable.

    `exceptions` are modules whose Makefile names them through a variable: module -> symbol.
    """
    index = {name: modules_dir / name for name in ("modules.alias", "modules.dep", "modules.softdep")}
    missing = [str(path) for path in index.values() if not path.is_file()]
    if missing:
        raise SourceUnavailable(f"the reference kernel lacks {', '.join(missing)}", "depmod -b ROOT RELEASE")
    dep = index["modules.dep"].read_text()
    builtin = modules_dir / "modules.builtin"
    return Reference(
        release=release,
        aliases=AliasTable(index["modules.alias"].read_text().splitlines()),
        depends=parse_dependencies(dep, index["modules.softdep"].read_text()),
        builtin=frozenset(map(module_name, builtin.read_text().split())) if builtin.is_file() else frozenset(),
        symbols=by_module(read_symbols(tree), parse_places(dep))
        | {module: (symbol,) for module, symbol in exceptions.items()},
    )


def parse_dependencies(dep: str, softdep: str) -> dict[str, tuple[str, ...]]:
    """Module -> what must be there before it, from modules.dep and the `pre:` part of modules.softdep."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in dep.splitlines():
        path, _, rest = line.partition(":")
        if path.strip():
            found[module_name(path.strip())] += [module_name(word) for word in rest.split()]
    for line in softdep.splitlines():
        match = SOFTDEP.match(line.strip())
        if match:
            found[module_name(match.group(1))] += [module_name(word) for word in match.group(2).split()]
    return {name: tuple(dict.fromkeys(others)) for name, others in found.items()}


def read_symbols(tree: Path) -> dict[str, tuple[str, ...]]:
    """Object (`fs/overlayfs/overlay`) -> the symbols that build it, from every Makefile of a tree that x86 uses."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for pattern in ("**/Makefile", "**/Kbuild"):
        for path in tree.glob(pattern):
            folder = path.relative_to(tree).parent
            if folder.parts[:1] in SKIPPED or _is_of_other_architecture(folder):
                continue
            for target, symbol in parse_makefile(path.read_text(errors="replace")):
                found[str(folder / target)][symbol] = None
    return {target: tuple(symbols) for target, symbols in found.items()}


def by_module(objects: Mapping[str, tuple[str, ...]], places: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Module -> symbols. Two modules of one name are told apart by the folder that modules.dep shows (`places`)."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for target, symbols in objects.items():
        folder, _, name = target.rpartition("/")
        module = module_name(name)
        if places.get(module, folder) == folder:
            found[module] |= dict.fromkeys(symbols)
    return {module: tuple(symbols) for module, symbols in found.items()}


def parse_places(dep: str) -> dict[str, str]:
    """Module -> its folder in the source tree, from the paths of modules.dep (kernel/fs/overlayfs/overlay.ko.xz)."""
    paths = (line.partition(":")[0].strip() for line in dep.splitlines())
    return {module_name(path): path.rpartition("/")[0].removeprefix("kernel/") for path in paths if path}


def _is_of_other_architecture(path: Path) -> bool:
    return path.parts[:1] == ("arch",) and path.parts[1:2] != ("x86",)


def parse_makefile(text: str) -> list[tuple[str, str]]:
    """(object, symbol) of every `obj-$(CONFIG_X) += name.o`, and of `obj-m` under a test of CONFIG_X."""
    pairs = []
    guards: list[str] = []
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith(("ifdef", "ifndef", "ifeq", "ifneq")):
            guard = GUARD.match(line)
            guards.append(guard.group(1) if guard else "")
        elif line.startswith("endif") and guards:
            guards.pop()
        found = OBJECT_LINE.match(line)
        symbol = (found.group(1) or next((name for name in reversed(guards) if name), "")) if found else ""
        if found and symbol:
            pairs += [(word[:-2], symbol) for word in found.group(2).split() if word.endswith(".o")]
    return pairs
