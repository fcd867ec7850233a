"""metrics.jsonl: what a run tells while it trains, one JSON object a line, flushed at once.

Kinds: `train` (loss_nats averaged over all ranks, lr, tokens_per_s and tokens of all ranks, grad_norm), `eval`
(val_loss_nats, val_bits_per_byte) and, last, `end` (reason: finished, stopped or failed).
"""

import json
import time
from pathlib import Path
from typing import TextIO


class MetricsWriter:
    """Appends records; a resumed run goes on in the same file. Only rank 0 has one that writes."""

    def __init__(self, run_dir: Path, *, enabled: bool) -> None:
        self._file: TextIO | None = None
        if enabled:
            path = run_dir / "metrics.jsonl"
            # A killed run may have left a torn last line; the next record starts on a line of its own.
            is_torn = path.is_file() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
            self._file = path.open("a")
            if is_torn:
                self._file.write("\n")

    def write(self, kind: str, step: int, **values: object) -> None:
        """One record, on disk when this returns."""
        if self._file is None:
            return
        record = {"kind": kind, "step": step, "time_unix_s": round(time.time(), 3), **values}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
