"""Which further symbols a symbol needs: walks `depends on` until everything above it can be switched on.

A driver's symbol over a small base loses its parents (PCI, ETHERNET, NET_VENDOR_*), and the kernel's tools then drop it
without a word. Works on the expressions of kconfig.KconfigTree; changes nothing.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from ..kconfig import KconfigTree, library

# A chain of parents is at most some ten long; this only ends a circle.
DEPTH_MAX = 30


@dataclass(slots=True, kw_only=True)
class Parents:
    """Symbols to add (with their values), and what could not be satisfied (with the reason)."""

    added: dict[str, str] = field(default_factory=dict)
    needed_by: dict[str, str] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)
    # No question of their own: others select them.
    selected_only: list[str] = field(default_factory=list)


def find_parents(tree: KconfigTree, symbols: Mapping[str, Set[str]]) -> Parents:
    """What must be on for every symbol to be on, beside what is on already.

    Args:
        symbols: symbol -> the symbols that may not be switched on for its sake.
    """
    found = Parents()
    for name, never in symbols.items():
        walk = _Walk(never=never)
        symbol = tree.symbol(name)
        if symbol is None:
            found.impossible[name] = "this version has no such symbol"
        elif not any(node.prompt for node in symbol.nodes):
            found.selected_only.append(name)
        else:
            added = walk.switch_on(symbol, dict(found.added), 0)
            if added is None:
                found.impossible[name] = f"it depends on {' and '.join(tree.unmet(name, 'm')) or 'what cannot be on'}"
            else:
                found.needed_by |= {other: name for other in added if other not in found.added and other != name}
                found.added = added
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walk:
    """One walk over expressions; each step gives the additions so far with its own, or None where it fails."""

    never: Set[str]

    def switch_on(self, symbol: Any, added: dict[str, str], depth: int) -> dict[str, str] | None:
        name = f"CONFIG_{symbol.name}"
        if symbol.tri_value or name in added:
            return added
        if depth > DEPTH_MAX or name in self.never or not any(node.prompt for node in symbol.nodes):
            return None
        conditions = [symbol.direct_dep, *(node.prompt[1] for node in symbol.nodes if node.prompt)]
        current: dict[str, str] | None = added
        for condition in conditions:
            current = None if current is None else self.satisfy(condition, current, depth + 1)
        if current is None:
            return None
        return {**current, name: "m" if symbol.orig_type == library().TRISTATE else "y"}

    def satisfy(self, expression: Any, added: dict[str, str], depth: int) -> dict[str, str] | None:
        kconfiglib = library()
        if kconfiglib.expr_value(expression):
            return added
        if not isinstance(expression, tuple):
            return self.switch_on(expression, added, depth) if getattr(expression, "nodes", None) else None
        if expression[0] is kconfiglib.AND:
            left = self.satisfy(expression[1], added, depth + 1)
            return None if left is None else self.satisfy(expression[2], left, depth + 1)
        if expression[0] is kconfiglib.OR:
            ways = [self.satisfy(part, added, depth + 1) for part in expression[1:]]
            possible = [way for way in ways if way is not None]
            return min(possible, key=len) if possible else None
        # NOT and comparisons: switching something off, or a number elsewhere, is a person's decision.
        return None
