"""Capabilities: what a node's kernel can be good for and what each needs, read from capabilities.toml."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .condition import Clause, parse_clause
from .errors import FragmentInvalid
from .version import satisfies

CAPABILITIES = Path(__file__).parent / "capabilities.toml"
NEED_KEYS: Mapping[str, type] = {
    "is": object,
    "why": str,
    "source": str,
    "kernel": str,
    "better": bool,
    "line": str,
    "place": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One thing that a capability needs; with `is_better` it works without, but less well.

    `line` says what to write where the clause alone does not, and `place` where the line goes.
    """

    clause: Clause
    why: str
    source: str
    kernel: str = ""
    is_better: bool = False
    line: str = ""
    place: str = ""

    @property
    def text(self) -> str:
        """The clause as its file has it, on one line."""
        return " or ".join(" and ".join(condition.text for condition in part) for part in self.clause)

    def counts_on(self, version: tuple[int, ...]) -> bool:
        """Whether a kernel of this version needs it at all."""
        return satisfies(version, self.kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One capability and its needs, in the order in which they are told."""

    name: str
    summary: str
    needs: tuple[Need, ...]


def load_capabilities(path: Path = CAPABILITIES) -> dict[str, Capability]:
    """Name -> capability. Raises FragmentInvalid with every mistake of the file at once."""
    mistakes: list[str] = []
    found = {row["name"]: _read_capability(row, mistakes) for row in tomllib.loads(path.read_text())["capability"]}
    for capability in found.values():
        mistakes += [f"{capability.name}: {text}" for text in _unknown_capabilities(capability, found)]
    if mistakes:
        raise FragmentInvalid(f"{len(mistakes)} mistakes in {path}:\n  " + "\n  ".join(mistakes))
    return found


def _read_capability(row: Mapping[str, object], mistakes: list[str]) -> Capability:
    name, needs = str(row["name"]), []
    rows = row["need"]
    assert isinstance(rows, list)
    for number, table in enumerate(rows, 1):
        wrong = [key for key in table if key not in NEED_KEYS or not isinstance(table[key], NEED_KEYS[key])]
        wrong += [key for key in ("is", "why", "source") if key not in table]
        if wrong:
            mistakes.append(f"{name}, need {number}: wrong or missing: {', '.join(wrong)}")
            continue
        try:
            needs.append(_read_need(table))
        except FragmentInvalid as error:
            mistakes.append(f"{name}, need {number}: {error}")
    return Capability(name=name, summary=str(row["summary"]), needs=tuple(needs))


def _read_need(table: Mapping[str, object]) -> Need:
    kernel = str(table.get("kernel", ""))
    satisfies((0,), kernel)  # raises for what is no condition
    return Need(
        clause=parse_clause(table["is"]),
        why=str(table["why"]),
        source=str(table["source"]),
        kernel=kernel,
        is_better=bool(table.get("better", False)),
        line=str(table.get("line", "")),
        place=str(table.get("place", "")),
    )


def _unknown_capabilities(capability: Capability, known: Mapping[str, Capability]) -> list[str]:
    named = [
        condition.name
        for need in capability.needs
        for part in need.clause
        for condition in part
        if condition.subject == "capability"
    ]
    return [
        f"there is no capability {name} above it"
        for name in named
        if name not in [*known][: [*known].index(capability.name)]
    ]
