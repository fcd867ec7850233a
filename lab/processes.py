"""Which processes belong to a lab, found without pid files so that a crash cannot hide any. Shown by `ps -ef`."""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from . import cgroups, network
from .errors import LabError
from .state import LabPaths, NodePaths

PROC = Path("/proc")
SUPERVISOR_MODULE = "kanctl.lab.supervisor"


def supervisor_words(node: NodePaths) -> list[str]:
    """The arguments, after python itself, that a node's supervisor runs with; they also identify it."""
    return ["-m", SUPERVISOR_MODULE, str(node.lab.state_root), node.lab.name, str(node.index)]


def find_supervisor(node: NodePaths) -> int | None:
    """The process id of the node's supervisor, None when there is none."""
    wanted = supervisor_words(node)
    return next((pid for pid, words in command_lines() if words[-len(wanted) :] == wanted), None)


def find_supervisors(lab: LabPaths) -> list[int]:
    """The supervisors of all nodes of the lab."""
    wanted = ["-m", SUPERVISOR_MODULE, str(lab.state_root), lab.name]
    return [pid for pid, words in command_lines() if words[-5:-1] == wanted]


def find_containers(node: NodePaths) -> set[int]:
    """The nspawn process of the node; without it a crash has happened, whatever else still runs."""
    return {pid for pid, words in command_lines() if f"--machine={node.machine}" in words}


def find_node(node: NodePaths) -> set[int]:
    """Every process of the node except its supervisor: nspawn, and all that runs inside."""
    in_cgroup = {pid for base in cgroups.hierarchies() for pid in cgroups.members(base / node.cgroup)}
    return find_containers(node) | in_cgroup | _in_netns(network.NETNS_DIR / node.netns)


def stop(pids: Iterable[int], *, patience_s: float) -> None:
    """Ask the processes to end, and kill those that have not after `patience_s`."""
    waiting = set(pids)
    _signal(waiting, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while (waiting := {pid for pid in waiting if is_alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(waiting, signal.SIGKILL)


def kill(pids: Iterable[int]) -> None:
    """Kill the processes; they may still be ending when this returns."""
    _signal(pids, signal.SIGKILL)


def kill_node(node: NodePaths) -> None:
    """Leave no process of the node except its supervisor. Raises LabError when some cannot be killed."""
    deadline = time.monotonic() + 15
    while pids := {pid for pid in find_node(node) if is_alive(pid)}:
        if time.monotonic() > deadline:
            raise LabError(
                f"{node.machine}: processes {sorted(pids)} do not end when killed", "wait for their disk, then again"
            )
        _signal(pids, signal.SIGKILL)
        time.sleep(0.05)


def kill_groups_naming(word: str) -> None:
    """Kill the process group of every program that has `word` among its arguments, and wait until they are gone."""
    own = os.getpgid(0)
    while named := [pid for pid, words in command_lines() if word in words and is_alive(pid)]:
        for pid in named:
            try:
                if os.getpgid(pid) != own:
                    os.killpg(os.getpgid(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue  # It went with another one's group.
        time.sleep(0.05)


def command_lines() -> list[tuple[int, list[str]]]:
    """Every process of this machine with its arguments."""
    found = []
    for path in PROC.glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")[:-1]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # It ended while we looked.
        found.append((int(path.parent.name), words))
    return found


def _in_netns(netns: Path) -> set[int]:
    """Processes in a network namespace, never ones of our own."""
    try:
        wanted = os.stat(netns)
    except FileNotFoundError:
        return set()
    own = os.stat(PROC / "self/ns/net")
    if os.path.samestat(wanted, own):
        return set()
    found = set()
    for path in PROC.glob("[0-9]*/ns/net"):
        try:
            if os.path.samestat(os.stat(path), wanted):
                found.add(int(path.parent.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # It ended while we looked.
    return found


def is_alive(pid: int) -> bool:
    """Whether the process still runs; one that only waits to be collected by its parent does not."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
