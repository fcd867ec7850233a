"""`kanctl train bench`: its rows as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = ("op", "case", "way", "forward", "forward and backward", "MB beyond", "error")


def bench_table(what: str, document: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Column names and rows of what `train bench` measured."""
    if what != "model":
        return COLUMNS, bench_rows(document)
    # Not at the top: it reads every variant's config.
    from kanctl.trainer.bench.model import HEADS, cells

    return HEADS, cells(document)


def bench_rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each way. Ratios are the baseline's time over the way's: more is better."""
    baselines = {
        (row["op"], row["case"]): row for row in document["rows"] if row["way"] == document["baselines"].get(row["op"])
    }
    return [_row(row, baselines.get((row["op"], row["case"]))) for row in document["rows"]]


def _row(row: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> tuple[str, ...]:
    worst = max(row["errors"].values(), default=None)
    return (
        row["op"],
        row["case"],
        row["way"],
        *(_time(row[key], _baseline_ms(row, key, baseline)) for key in ("forward_ms", "both_ms")),
        "-" if row["extra_mb"] is None else f"{row['extra_mb']:,.0f}",
        "-" if worst is None else f"{worst:.1e}",
    )


def _baseline_ms(row: Mapping[str, Any], key: str, baseline: Mapping[str, Any] | None) -> float | None:
    """The baseline's time in turn with this row's if there is one, else that of its own row."""
    in_turn: float | None = row.get(f"baseline_{key}")
    return in_turn or (baseline[key] if baseline else None)


def _time(ms: float | None, baseline_ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.3f} ms" if baseline_ms is None else f"{ms:.3f} ms ({baseline_ms / ms:.2f}x)"


def failures(document: Mapping[str, Any]) -> list[str]:
    """A line for each measurement that failed: what it was, and why."""
    keys = ("op", "case", "way", "variant", "lr")
    return [", ".join(str(row[key]) for key in keys if key in row) + f": {row['error']}" for row in document["failed"]]
