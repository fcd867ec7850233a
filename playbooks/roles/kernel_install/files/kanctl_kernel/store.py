"""The state on disk: one JSON file, replaced whole, so that a power cut leaves the old one or the new one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .machine import State, Trial, Verdict

FOLDER = Path("/var/lib/kanctl/kernel")


class StateDamaged(Exception):
    """The state file is not what this program writes."""


def load(folder: Path) -> State:
    """The state; an empty one where there is none. Raises StateDamaged."""
    path = folder / "state.json"
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return State()
    except ValueError as error:
        raise StateDamaged(f"{path} is not JSON: {error}") from error
    try:
        trial = row["trial"]
        return State(
            last_good=row["last_good"],
            trial=Trial(**{name: _tuples(value) for name, value in trial.items()}) if trial else None,
            history=tuple(Verdict(**verdict) for verdict in row["history"]),
        )
    except (KeyError, TypeError) as error:
        raise StateDamaged(f"{path} lacks or has too much: {error}") from error


def save(folder: Path, state: State) -> None:
    """Write the state and wait until it is on the disk, the folder's entry included."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "state.json.part"
    with scratch.open("w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / "state.json")
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
