"""What can be wrong with an inventory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kanctl.errors import BadInputError


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mistake:
    """One mistake: where it stands, what was found there and what is wanted."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


class InventoryInvalid(BadInputError):
    """The inventory cannot be used; `mistakes` holds all of them, not the first."""

    def __init__(self, path: Path, mistakes: Sequence[Mistake]) -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"{path}: {count}, no node was touched{lines}", "docs/inventory.md lists every variable")
        self.mistakes = tuple(mistakes)
