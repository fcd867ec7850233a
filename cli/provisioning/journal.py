"""The journal of each provisioning: JSON lines on disk at once, so that a killed run tells where it was.

Records: `start` (inventory, nodes, options), `task` (node, step, task, outcome, changed, seconds), `end` (status).
Nothing is resumed from it: roles are idempotent, so running again converges. It is for people and for `provision`'s
own remark that the last run was cut off.
"""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from ..context import user_data_dir
from .state import TaskResult

# Enough to look back on; older ones are dropped.
KEEP = 50


class Journal:
    """An open journal; every record is on disk when its call returns."""

    def __init__(self, inventory: Path, nodes: tuple[str, ...], options: dict[str, object]) -> None:
        folder = journal_dir()
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.path = folder / f"{stamp}-{os.getpid()}-provision.jsonl"
        self._file: TextIO = self.path.open("x")
        for old in sorted(folder.glob("*-provision.jsonl"))[:-KEEP]:
            old.unlink(missing_ok=True)
        self._write("start", inventory=str(inventory.resolve()), nodes=nodes, pid=os.getpid(), **options)

    def task(self, result: TaskResult) -> None:
        """Note one task's end."""
        self._write("task", **asdict(result))

    def end(self, status: str, totals: dict[str, dict[str, int]]) -> None:
        """Note the end: done, failed or interrupted; then close."""
        self._write("end", status=status, totals=totals)
        self._file.close()

    def _write(self, kind: str, **values: object) -> None:
        self._file.write(json.dumps({"kind": kind, "time_unix_s": round(time.time(), 3), **values}) + "\n")
        self._file.flush()


def journal_dir() -> Path:
    """Where journals lie."""
    return user_data_dir() / "journal"


def describe_cut_off(inventory: Path) -> str | None:
    """One line about the last run of this inventory if it has no end; None when it ended, or there was none."""
    for path in sorted(journal_dir().glob("*-provision.jsonl"), reverse=True):
        records = _read(path)
        if not records or records[0].get("inventory") != str(inventory.resolve()):
            continue
        if records[-1]["kind"] == "end" or _is_alive(records[0].get("pid")):
            return None
        when = time.strftime("%H:%M:%S", time.localtime(records[0]["time_unix_s"]))
        tasks = [record for record in records if record["kind"] == "task"]
        where = f" after '{tasks[-1]['task']}' on {tasks[-1]['node']}" if tasks else ""
        return f"the run of {when} was cut off{where}; running again, which converges ({path})"
    return None


def _read(path: Path) -> list[dict[str, Any]]:
    """A journal's records; a torn last line is left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _is_alive(pid: object) -> bool:
    """Whether that process is a kanctl that still runs: its journal is then not cut off."""
    try:
        return b"provision" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
