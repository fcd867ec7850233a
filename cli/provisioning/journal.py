"""The journal of each provisioning: JSON lines written at once, so that a killed run tells where it was.

docs/journal.md describes the records. Nothing is resumed from it: roles are idempotent, so running again converges.
It is for people, and for `provision` to know that the last run was cut off, or that one is still at work.
"""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kanctl.errors import KanctlError

from ..context import user_data_dir
from .state import TaskResult

# Enough to look back on; older ones are dropped.
KEEP = 50


class Journal:
    """An open journal; every record is in the file when its call returns. `problem` says why not, if not."""

    def __init__(self, inventory: Path, nodes: tuple[str, ...], options: dict[str, object]) -> None:
        folder = journal_dir()
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.path = folder / f"{stamp}-{os.getpid()}-provision.jsonl"
        self.problem = ""
        self._has_end = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a record is out, or has failed, when its call returns.
            self._file = self.path.open("xb", buffering=0)
            # Held as long as this run lives, however it ends: see LastRun.is_alive.
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError as error:
            step = "make the folder writable, or set KANCTL_HOME to another"
            raise KanctlError(
                f"no node was touched: wanted a journal at {self.path}, found: {error.strerror}", step
            ) from error
        for old in sorted(folder.glob("*-provision.jsonl"))[:-KEEP]:
            old.unlink(missing_ok=True)
        self._write("start", inventory=str(inventory.resolve()), nodes=nodes, pid=os.getpid(), **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._has_end:
            self.end("interrupted" if kind is KeyboardInterrupt else "failed", {}, {})
        self._file.close()

    def begin(self, node: str, step: str, task: str) -> None:
        """Note that a task begins on a node."""
        self._write("begin", node=node, step=step, task=task)

    def task(self, result: TaskResult) -> None:
        """Note one task's end."""
        self._write("task", **asdict(result))

    def end(self, status: str, totals: dict[str, dict[str, int]], running: dict[str, str]) -> None:
        """Note the end: done, failed or interrupted; with the tasks whose end was not heard."""
        self._write("end", status=status, totals=totals, running=running)
        self._has_end = True

    def _write(self, kind: str, **values: object) -> None:
        """A full disk here is no reason to stop in the middle of a node: it is told at the end."""
        try:
            record = json.dumps({"kind": kind, "time_unix_s": round(time.time(), 3), **values})
            self._file.write(record.encode() + b"\n")
        except OSError as error:
            self.problem = str(error.strerror)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """A run whose journal has no end: it is still at work, or was cut off."""

    path: Path
    start_unix_s: float
    pid: int
    is_alive: bool
    running: dict[str, str]

    @property
    def when(self) -> str:
        """Its start as a clock shows it, with the date when that was not today."""
        now, start = time.localtime(), time.localtime(self.start_unix_s)
        return time.strftime("%H:%M" if now[:3] == start[:3] else "%Y-%m-%d %H:%M", start)

    def describe(self) -> str:
        """One line for a run that was cut off: when, and in which tasks."""
        where = describe_running(self.running)
        return f"the run of {self.when} was cut off{' while ' + where if where else ''}"


def describe_running(running: dict[str, str]) -> str:
    """Node -> task, in words: each task with its nodes."""
    nodes: dict[str, list[str]] = {}
    for node, task in running.items():
        nodes.setdefault(task, []).append(node)
    return ", ".join(f"'{task}' on {', '.join(names)}" for task, names in nodes.items())


def journal_dir() -> Path:
    """Where journals lie."""
    return user_data_dir() / "journal"


def last_run(inventory: Path) -> LastRun | None:
    """The last run that changed nodes of this inventory, if its journal has no end; None otherwise."""
    for path in sorted(journal_dir().glob("*-provision.jsonl"), reverse=True):
        is_alive = _is_locked(path)
        records = _read(path)
        if not records or records[0].get("inventory") != str(inventory.resolve()) or records[0].get("check"):
            continue
        if records[-1]["kind"] == "end":
            return None
        return LastRun(
            path=path,
            start_unix_s=records[0]["time_unix_s"],
            pid=records[0]["pid"],
            is_alive=is_alive,
            running=_running(records),
        )
    return None


def _running(records: list[dict[str, Any]]) -> dict[str, str]:
    """Node -> the task that had begun and not ended."""
    running: dict[str, str] = {}
    for record in records:
        if record["kind"] == "begin":
            running[record["node"]] = record["task"]
        elif record["kind"] == "task":
            running.pop(record["node"], None)
    return running


def _read(path: Path) -> list[dict[str, Any]]:
    """A journal's records; a torn last line is left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
