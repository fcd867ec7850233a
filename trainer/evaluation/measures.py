"""A figure and its baselines: what every task of an evaluation answers with."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure. Raises ValueError without a baseline: a figure alone says nothing."""

    task: str
    name: str
    value: float
    unit: str
    count: int
    """How much it was measured on: bytes, tokens, answers or problems, as the unit says."""
    baselines: Mapping[str, float]
    """What it is to be compared with, by name, in the same unit and on the same text."""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.baselines:
            raise ValueError(f"{self.task}, {self.name}: wanted at least one baseline")

    def row(self) -> dict[str, object]:
        """As `kanctl train evaluate --json` shows it; what no double can hold is null."""
        row = asdict(self) | {
            "value": _shown(self.value),
            "baselines": {name: _shown(value) for name, value in self.baselines.items()},
        }
        return row if self.note else {key: value for key, value in row.items() if key != "note"}


def _shown(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
