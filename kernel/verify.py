"""What became of every requested line: taken, forced, dropped, unknown, renamed or waived, each with its reason. Pure.

The kernel's tools answer a line that they cannot honour with silence; this file is the answer to that.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from .fragment import Request
from .profile import Waiver
from .version import parse_release

RENAMED = Path(__file__).parent / "renamed.toml"


class Outcome(StrEnum):
    """How a requested line ended."""

    TAKEN = "taken"
    FORCED = "forced"
    DROPPED = "dropped"
    UNKNOWN = "unknown"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One requested line and its end; `waiver` is the accepted reason where it was not taken."""

    request: Request
    found: str
    outcome: Outcome
    why: str = ""
    waiver: str = ""

    @property
    def is_explained(self) -> bool:
        """Whether nobody needs to look at it: taken, or waived by name."""
        return self.outcome is Outcome.TAKEN or bool(self.waiver)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All lines of one configuration, and waivers that no longer waive anything."""

    version: str
    lines: tuple[Line, ...]
    idle_waivers: tuple[str, ...] = ()

    @property
    def unexplained(self) -> tuple[Line, ...]:
        """The lines that fail the verification."""
        return tuple(line for line in self.lines if not line.is_explained)


class Explainer(Protocol):
    """What verify needs to know of a version's Kconfig; kconfig.KconfigTree, or a small stand-in in tests."""

    def has(self, symbol: str) -> bool: ...
    def nearest(self, symbol: str) -> list[str]: ...
    def selectors(self, symbol: str) -> list[str]: ...
    def unmet(self, symbol: str, wanted: str) -> list[str]: ...
    def describe(self, symbol: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """A symbol that a version renamed (or removed, with an empty `now`)."""

    old: str
    now: str
    since: tuple[int, ...]
    note: str


def load_renames(path: Path = RENAMED) -> dict[str, Rename]:
    """Old name -> what became of it."""
    rows = tomllib.loads(path.read_text())["symbol"]
    return {row["old"]: Rename(**{**row, "since": parse_release(row["since"])}) for row in rows}


def verify(
    version: str,
    requests: Mapping[str, Request],
    config: Mapping[str, str],
    waivers: Mapping[str, Waiver],
    explainer: Callable[[], Explainer],
    renames: Mapping[str, Rename],
) -> Verification:
    """Compare requests with a finished .config.

    Args:
        config: symbol -> value; a symbol that is absent counts as `n`.
        explainer: called once, and only when a line was not taken: parsing a tree takes seconds.
    """
    missed = {symbol for symbol, request in requests.items() if config.get(symbol, "n") != request.value}
    tree = explainer() if missed else None
    lines = []
    for symbol, request in requests.items():
        found = config.get(symbol, "n")
        if symbol not in missed:
            lines.append(Line(request=request, found=found, outcome=Outcome.TAKEN))
            continue
        assert tree is not None
        outcome, why = explain(request, found, tree, renames, parse_release(version))
        waiver = waivers[symbol].reason if symbol in waivers else ""
        lines.append(Line(request=request, found=found, outcome=outcome, why=why, waiver=waiver))
    idle = tuple(symbol for symbol in waivers if symbol in requests and symbol not in missed)
    return Verification(version=version, lines=tuple(lines), idle_waivers=idle)


def explain(
    request: Request, found: str, tree: Explainer, renames: Mapping[str, Rename], version: tuple[int, ...]
) -> tuple[Outcome, str]:
    """Why one line was not taken."""
    symbol, wanted = request.symbol, request.value
    if not tree.has(symbol):
        return _explain_missing(symbol, tree, renames.get(symbol), version)
    facts = tree.describe(symbol)
    if found != "n" and wanted == "n":
        return Outcome.FORCED, _forced_by(tree.selectors(symbol), facts)
    if wanted == "m" and facts["type"] == "bool":
        return Outcome.DROPPED, "it is a bool: y or n, never m"
    if facts["chosen_instead"]:
        return Outcome.FORCED, f"of its choice, {facts['chosen_instead']} was taken"
    if facts["range"] and found != "n":
        return Outcome.FORCED, f"its range is {facts['range']}"
    unmet = tree.unmet(symbol, wanted)
    if unmet:
        return Outcome.DROPPED, f"it depends on {' and '.join(unmet)}"
    if not facts["has_question"]:
        return Outcome.DROPPED, "it has no question of its own: only other symbols can switch it on"
    selectors = tree.selectors(symbol)
    if selectors:
        return Outcome.FORCED, _forced_by(selectors, facts)
    return Outcome.DROPPED, "the kernel's tools took another value without a reason that Kconfig shows"


def _explain_missing(
    symbol: str, tree: Explainer, rename: Rename | None, version: tuple[int, ...]
) -> tuple[Outcome, str]:
    if rename is not None and version >= rename.since:
        since = ".".join(map(str, rename.since))
        now = f"it is {rename.now} since {since}" if rename.now else f"gone since {since}"
        return Outcome.RENAMED, f"{now}: {rename.note}" if rename.note else now
    near: Sequence[str] = tree.nearest(symbol)
    return Outcome.UNKNOWN, f"no such symbol; nearest: {', '.join(near)}" if near else "no such symbol, none is near"


def _forced_by(selectors: Sequence[str], facts: Mapping[str, Any]) -> str:
    if selectors:
        shown = ", ".join(selectors[:3]) + (f" and {len(selectors) - 3} more" if len(selectors) > 3 else "")
        return f"selected by {shown}"
    return "it has no question, and its default is on" if not facts["has_question"] else "its default is on"
