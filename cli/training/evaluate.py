"""What `kanctl train evaluate` sends to where the run is, and its answer as a table."""

from collections.abc import Sequence
from typing import Any

from .names import run_dir
from .place import Place


def evaluate_words(
    place: Place,
    run: str,
    checkpoint: str,
    tasks: Sequence[str],
    max_bytes: int | None,
    recall_lengths: Sequence[int],
) -> list[str]:
    """The arguments of the evaluate module for a run of this place."""
    words = ["--run-dir", run_dir(place.data_dir, run), "--checkpoint", checkpoint, "--json"]
    words += [f"--task={task}" for task in tasks]
    words += ["--max-bytes", str(max_bytes)] if max_bytes is not None else []
    return words + (["--recall-lengths", *map(str, recall_lengths)] if recall_lengths else [])


def measure_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
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
