"""Loss curves of a run, from its metrics.jsonl."""

import json
from pathlib import Path
from typing import Any


def loss_history(run_dir: Path) -> dict[str, list[dict[str, float]]]:
    """`train` and `validation`: step and loss in nats per token, in order. Of a step told twice the later one counts.

    A run without metrics has empty curves; torn lines, which a kill leaves, are skipped.
    """
    records = [_record(line) for line in _lines(run_dir / "metrics.jsonl")]
    return {
        "train": _curve(records, "train", "loss_nats"),
        "validation": _curve(records, "eval", "val_loss_nats"),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _curve(records: list[dict[str, Any]], kind: str, key: str) -> list[dict[str, float]]:
    by_step = {record["step"]: record[key] for record in records if record.get("kind") == kind}
    return [{"step": step, "loss_nats": by_step[step]} for step in sorted(by_step)]
