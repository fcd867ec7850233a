"""The results file of a benchmark: one JSON document that grows by a row at a time, so that a cut run goes on.

What the rows hold is each benchmark's own.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

Job = TypeVar("Job")


def open_document(path: Path | None, plan: Mapping[str, Any], text: str, commit: str | None) -> dict[str, Any]:
    """The results so far, or an empty document of this machine. Raises SystemExit for results of another setting."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    head = {"device": name, "driver": _driver(), "torch": torch.__version__, "plan": dict(plan), "text": text}
    if path is not None and path.is_file():
        document: dict[str, Any] = json.loads(path.read_text()) | {"failed": []}
        if {key: document.get(key) for key in head} != head:
            raise SystemExit(f"{path} holds results of another device or plan; name another file with --out")
        return document
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit or _commit(), **head, "failed": [], "rows": []}


def fill(
    path: Path | None,
    document: dict[str, Any],
    jobs: Iterable[tuple[dict[str, Any], Job]],
    run: Callable[[Job], dict[str, Any]],
    minutes: float,
) -> None:
    """Run the jobs whose keys no row has yet, and write each row at once; begin none after so many minutes.

    Without a path the rows are in the document alone.
    """
    deadline_s = time.monotonic() + 60 * minutes
    for key, job in jobs:
        if any(key.items() <= row.items() for row in document["rows"]):
            continue
        if time.monotonic() > deadline_s:
            print("time is up; the same command goes on", file=sys.stderr)
            break
        title = ", ".join(f"{name} {value}" for name, value in key.items())
        print(title, file=sys.stderr)
        try:
            row = run(job)
        except (RuntimeError, AssertionError) as error:
            # One model that does not fit or does not run here leaves the others their turn. Compiled code asserts.
            print(f"  failed: {error}", file=sys.stderr)
            document["failed"].append({**key, "error": str(error)[:500]})
            continue
        document["rows"].append({**key, **row})
        if path is not None:
            path.write_text(json.dumps(document, indent=1) + "\n")


def lowest(row: Mapping[str, Any]) -> float:
    """The lowest validation loss of a training, nats per byte."""
    return float(min(each["val_loss_nats"] for each in row["evals"]))


def loss_at(row: Mapping[str, Any], key: str, value: float) -> float | None:
    """The validation loss at the last evaluation up to a step or a second; None before the first."""
    seen = [each["val_loss_nats"] for each in row["evals"] if each[key] <= value]
    return seen[-1] if seen else None


def reached(row: Mapping[str, Any], loss_nats: float) -> Mapping[str, float] | None:
    """The first evaluation whose validation loss is at most so high; None where there is none."""
    return next((each for each in row["evals"] if each["val_loss_nats"] <= loss_nats), None)


def markdown(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *map(list, rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _driver() -> str | None:
    """NVIDIA's driver version, as `cat /proc/driver/nvidia/version` shows it; None without one."""
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"(\d+\.\d+(\.\d+)?)", path.read_text()) if path.is_file() else None
    return found[1] if found else None


def _commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
