"""Devices -> modules -> symbols: the union of what the fleet's devices need, what was seen loaded, and policy. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .aliases import module_name
from .policy import Policy
from .reference import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Why a module is wanted: the strongest of its reasons, and the nodes that have it."""

    kind: str
    why: str
    nodes: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Selection:
    """What the fleet needs of a kernel."""

    modules: dict[str, Need] = field(default_factory=dict)
    # Symbol -> the modules that it builds here.
    symbols: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    denied: dict[str, str] = field(default_factory=dict)
    # Seen on nodes, but in no module list of the reference kernel: drivers from elsewhere.
    out_of_tree: dict[str, tuple[str, ...]] = field(default_factory=dict)
    without_symbol: list[str] = field(default_factory=list)


def select(nodes: Mapping[str, Mapping[str, Any]], reference: Reference, policy: Policy) -> Selection:
    """The modules and symbols that nodes need.

    Args:
        nodes: node name -> facts of a fleet file (docs/kernel.md).
    """
    chosen = Selection()
    for module, (why, names) in _by_device(nodes, reference).items():
        _want(chosen, module, Need(kind="device", why=why, nodes=names), policy)
    for module, names in _loaded(nodes).items():
        if module in reference.depends:
            _want(chosen, module, Need(kind="loaded", why="seen loaded", nodes=names), policy)
        elif module not in reference.builtin:
            chosen.out_of_tree[module] = names
    for module, why in policy.always.items():
        if module in reference.depends:
            _want(chosen, module, Need(kind="policy", why=why), policy)
    for parent in [name for name in policy.children if name in chosen.modules]:
        for child in policy.children[parent]:
            why = f"child of {parent} on the auxiliary bus"
            _want(chosen, child, Need(kind="child", why=why, nodes=chosen.modules[parent].nodes), policy)
    for module, parent in reference.closure(chosen.modules).items():
        _want(chosen, module, Need(kind="dependency", why=f"{parent} needs it"), policy)
    _find_symbols(chosen, reference)
    return chosen


def is_for_device(chosen: Selection, symbol: str) -> bool:
    """Whether a device of the fleet needs the symbol's module itself, which outranks what a profile switches off.

    A dependency does not count: modules.dep shows how the reference kernel was configured, and what a driver cannot do
    without stands in its `depends on`.
    """
    return any(chosen.modules[name].kind in {"device", "child"} for name in chosen.symbols.get(symbol, ()))


def claimed_by(device: Mapping[str, Any], reference: Reference) -> list[str]:
    """The modules of the reference kernel that claim a device, by its alias or by the driver that it has now."""
    found = reference.aliases.match(device.get("modalias") or "")
    bound = device.get("module")
    if bound and module_name(bound) in reference.depends:
        found = [module_name(bound), *found]
    return list(dict.fromkeys(found))


def _by_device(nodes: Mapping[str, Mapping[str, Any]], reference: Reference) -> dict[str, tuple[str, tuple[str, ...]]]:
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    why: dict[str, str] = {}
    for name, facts in nodes.items():
        for device in facts["devices"]:
            for module in claimed_by(device, reference):
                seen[module][name] = None
                why.setdefault(module, _short_alias(device.get("modalias") or device["path"]))
    return {module: (why[module], tuple(names)) for module, names in seen.items()}


def _loaded(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    seen: dict[str, list[str]] = defaultdict(list)
    for name, facts in nodes.items():
        for module in facts["loaded"]:
            seen[module_name(module)].append(name)
    return {module: tuple(names) for module, names in seen.items()}


def _want(chosen: Selection, module: str, need: Need, policy: Policy) -> None:
    """The first reason for a module stays; a denied one is only noted."""
    if module in policy.deny:
        chosen.denied[module] = policy.deny[module]
    elif module not in policy.may_lose or need.kind == "policy":
        chosen.modules.setdefault(module, need)


def _find_symbols(chosen: Selection, reference: Reference) -> None:
    """Modules with one symbol first; a helper that many symbols share counts as met when one of them is chosen.

    Otherwise libahci.o, listed under some twenty symbols, would switch all of them on.
    """
    shared = []
    for module in chosen.modules:
        symbols = reference.symbols.get(module, ())
        if len(symbols) == 1:
            chosen.symbols[symbols[0]].append(module)
        elif symbols:
            shared.append(module)
        elif module not in reference.builtin:
            chosen.without_symbol.append(module)
    for module in shared:
        symbols = reference.symbols[module]
        met = [symbol for symbol in symbols if symbol in chosen.symbols]
        chosen.symbols[(met or _best(symbols, module))[0]].append(module)


def _best(symbols: Sequence[str], module: str) -> list[str]:
    """The symbol that is spelled most like the module, for a shared object that nothing else brings."""
    return sorted(symbols, key=lambda symbol: (module.upper() not in symbol, len(symbol), symbol))


def _short_alias(modalias: str) -> str:
    """`15b3:1021` of a PCI alias, the alias itself otherwise, cut to a line."""
    if modalias.startswith("pci:v"):
        return f"PCI {modalias[9:13].lower()}:{modalias[18:22].lower()}"
    return modalias if len(modalias) <= 60 else f"{modalias[:57]}..."


def names_of(nodes: Iterable[str]) -> str:
    """`node1, node2 and 3 more`."""
    listed = list(nodes)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
