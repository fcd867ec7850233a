"""Watching a run: its progress until it ends, and its log lines with the node in front."""

import time
from collections.abc import Iterator

from kanctl.errors import KanctlError

from ..output import print_note
from .names import run_dir
from .place import Place
from .runs import ENDED, RunStatus, is_busy, read_status

POLL_S = 2.0


def follow_run(place: Place, run: str) -> RunStatus:
    """Report progress on stderr until the run ends. Raises KanctlError when it ends by failing.

    Leaving with Ctrl-C stops the watching, never the run.
    """
    last_step = None
    while True:
        status = read_status(place, run)
        if status.step is not None and status.step != last_step:
            print_note(describe(status))
            last_step = status.step
        # The last record is written before the processes leave; a next launch would find them still there.
        if status.state in ENDED and not is_busy(status):
            break
        time.sleep(POLL_S)
    if status.state in {"failed", "lost"}:
        raise KanctlError(f"{run} {status.state} at step {status.step or 0}", f"kanctl train logs {run}")
    return status


def describe(status: RunStatus) -> str:
    """One line of progress."""
    parts = [f"{status.run}: {status.state}, step {status.step or 0}/{status.steps_total}"]
    if status.loss_last_nats is not None:
        parts.append(f"loss {status.loss_last_nats:.3f} nats (first {status.loss_first_nats:.3f})")
    if status.val_bits_per_byte is not None:
        parts.append(f"validation {status.val_bits_per_byte:.3f} bits/byte")
    if status.tokens_per_s is not None:
        parts.append(f"{status.tokens_per_s:,.0f} tokens/s")
    return ", ".join(parts)


def log_lines(place: Place, run: str, *, lines: int, follow: bool) -> Iterator[str]:
    """The last lines of every node's log, each with its node in front; with `follow`, new ones as they come."""
    folder = f"{run_dir(place.data_dir, run)}/logs"
    files = [f"{folder}/{name}" for name in place.run(["ls", "-1", folder]).stdout.split() if name.endswith(".log")]
    if not files:
        raise KanctlError(f"{run} has no log yet in {folder}", f"kanctl train status {run}")
    node = "?"
    for line in place.stream(["tail", "-v", "-n", str(lines), *(["-F"] if follow else []), *files]):
        if line.startswith("==> ") and line.endswith(" <=="):
            node = line[4:-4].rsplit("/", 1)[-1].removesuffix(".log")
        elif line:
            yield f"{node} | {line}"
