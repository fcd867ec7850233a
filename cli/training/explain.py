"""`kanctl train explain`: which implementation runs, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any


def explain_rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each part of the model and kind of work; layers that agree share one."""
    return [
        (_ranges(row["layers"]), row["part"], row["layer"], row["work"], row["implementation"], row["reason"])
        for row in found["rows"]
    ]


def where(found: Mapping[str, Any]) -> str:
    """The machine that was explained for, in a line."""
    if found["device"] == "cpu":
        return f"{found['recipe']} on a CPU, {found['dtype']}"
    triton = f"Triton {found['triton']}" if found["triton"] else "no Triton"
    return f"{found['recipe']} on a GPU of compute capability {found['capability']}, {triton}, {found['dtype']}"


def _ranges(layers: Sequence[int]) -> str:
    """0, 1, 2, 4 as `0-2, 4`."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
