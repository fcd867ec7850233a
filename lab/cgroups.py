"""A cgroup per node, made by hand, on hosts of either kind.

Hybrid host (cgroup v1 with systemd's named hierarchy beside the unified one): the node's cgroup exists in both.
Plain cgroup v2: in the one hierarchy; where systemd is PID 1, inside the unit that it delegated to the supervisor.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def hierarchies(mountinfo: str | None = None) -> list[Path]:
    """Where the hierarchies that systemd inside a node uses are mounted on the host."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = [*right.split(), "", "", ""][:3]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(left.split()[4]))
    return found


def own_cgroup(hierarchy: Path, membership: str | None = None) -> Path:
    """This process's cgroup in the hierarchy."""
    text = Path("/proc/self/cgroup").read_text() if membership is None else membership
    is_v2 = (hierarchy / "cgroup.controllers").exists()
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if (is_v2 and number == "0") or (not is_v2 and controllers == "name=systemd"):
            return hierarchy / path.lstrip("/")
    return hierarchy


@contextmanager
def entered(relative: str, bases: list[Path]) -> Iterator[list[Path]]:
    """Within the block this process, and what it starts, is in the cgroup `relative` below each of `bases`."""
    before = [own_cgroup(hierarchy) for hierarchy in hierarchies()]
    inside = [base / relative for base in bases]
    for cgroup in inside:
        cgroup.mkdir(parents=True, exist_ok=True)
        _move_self(cgroup)
    try:
        yield inside
    finally:
        for cgroup in before:
            _move_self(cgroup)


def members(cgroup: Path) -> list[int]:
    """Ids of all processes in the cgroup and below it."""
    found: list[int] = []
    for path in cgroup.rglob("cgroup.procs") if cgroup.is_dir() else ():
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            # A cgroup can go away while it is read; it had no members then.
            continue
    return found


def remove(cgroup: Path) -> None:
    """Remove an empty cgroup with all below it; one that still has members is left."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        remove_if_empty(Path(folder))


def remove_if_empty(cgroup: Path) -> None:
    """Remove a cgroup that holds neither processes nor other cgroups."""
    try:
        cgroup.rmdir()
    except OSError:
        return


def _move_self(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text("0")
