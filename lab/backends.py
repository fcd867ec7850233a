"""Which of the two backends a lab has: containers, or machines; commands that fit both go through here."""

from collections.abc import Callable
from pathlib import Path

from . import containers, status
from .machines import login, machines
from .model import STATE_ROOT, LabSpec, LabStatus, check_name
from .state import LabPaths

Progress = Callable[[str], None]


def up(spec: LabSpec, progress: Progress, *, wants_machines: bool) -> LabStatus:
    """Bring the lab up, or repair it, with the backend that it has; a new one with the one that is wanted."""
    paths = LabPaths(name=spec.name, state_root=spec.state_root)
    if wants_machines or machines.has_traces(paths):
        return machines.up(spec, progress)
    return containers.up(spec, progress)


def down(name: str, progress: Progress, state_root: Path = STATE_ROOT) -> None:
    """Leave nothing of the lab."""
    if machines.has_traces(_paths(name, state_root)):
        machines.down(name, progress, state_root)
    else:
        containers.down(name, progress, state_root)


def read_status(name: str, state_root: Path = STATE_ROOT) -> LabStatus:
    """The lab as it is now. Raises LabMissing."""
    if machines.has_traces(_paths(name, state_root)):
        return machines.read_status(name, state_root)
    return status.read_status(name, state_root)


def ssh_words(name: str, node_name: str, command: list[str], state_root: Path = STATE_ROOT) -> list[str]:
    """The ssh command that runs `command` on a node, or opens a shell."""
    if machines.has_traces(_paths(name, state_root)):
        return login.ssh_words(name, node_name, command, state_root)
    return status.ssh_words(name, node_name, command, state_root)


def _paths(name: str, state_root: Path) -> LabPaths:
    return LabPaths(name=check_name(name), state_root=state_root)
