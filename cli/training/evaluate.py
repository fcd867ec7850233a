"""`kanctl train evaluate`: its measures as a table."""

from collections.abc import Mapping
from typing import Any


def measure_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each measure, the baselines in one cell; `-` for what is beyond any number."""
    return [
        (
            row["task"],
            row["name"] + (f" ({row['note']})" if "note" in row else ""),
            _shown(row["value"]),
            row["unit"],
            ", ".join(f"{name} {_shown(value)}" for name, value in row["baselines"].items()),
            str(row["count"]),
        )
        for row in result["measures"]
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
