"""metrics.jsonl: what a run tells while it trains, one JSON object a line, flushed at once.

Kinds: `train` (loss_nats averaged over all ranks, lr, tokens_per_s and tokens of all ranks, grad_norm), `eval`
(val_loss_nats, val_bits_per_byte) and, last, `end` (reason: finished, stopped or failed).
"""

import json
import time
from io import FileIO
from pathlib import Path


class MetricsWriter:
    """Appends records; a resumed run goes on in the same file. Only rank 0 has one that writes."""

    def __init__(self, run_dir: Path, *, enabled: bool) -> None:
        self.last_step = 0
        """Step of the newest record of this process, 0 before the first."""
        self._file: FileIO | None = None
        if enabled:
            path = run_dir / "metrics.jsonl"
            # A killed run may have left a torn last line; the next record starts on a line of its own.
            is_torn = path.is_file() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
            # Without a buffer: on a full disk it would fail again when it is closed.
            self._file = path.open("ab", buffering=0)
            if is_torn:
                self._file.write(b"\n")

    def write(self, kind: str, step: int, **values: object) -> None:
        """One record, out of this process when it returns. Raises ValueError for a number that JSON has not."""
        self.last_step = step
        if self._file is None:
            return
        record = {"kind": kind, "step": step, "time_unix_s": round(time.time(), 3), **values}
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
