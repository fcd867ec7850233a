"""The host's mounts as far as a lab makes any: one overlay per node. Shown by `findmnt -t overlay`."""

import re
from pathlib import Path

from kanctl.programs import ProgramFailed

from . import tools
from .errors import LabError

MOUNTINFO = Path("/proc/self/mountinfo")


def list_below(folder: Path, mountinfo: str | None = None) -> list[Path]:
    """Mount points at or under `folder`, in the order in which they can be unmounted: the innermost first."""
    text = MOUNTINFO.read_text() if mountinfo is None else mountinfo
    points = [Path(_unescape(line.split()[4])) for line in text.splitlines()]
    below = [point for point in points if point == folder or folder in point.parents]
    return sorted(below, key=lambda point: len(point.parts), reverse=True)


def is_mount_point(folder: Path) -> bool:
    """Whether something is mounted exactly at `folder`."""
    return folder in list_below(folder)


def mount_overlay(*, lower: list[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount `upper` over the `lower` folders (the first one wins) at `target`. Raises LabError."""
    layers = ":".join(str(path) for path in lower)
    options = f"lowerdir={layers},upperdir={upper},workdir={work}"
    try:
        tools.run(["mount", "-t", "overlay", "overlay", "-o", options, str(target)])
    except ProgramFailed as error:
        kind = tools.run(["stat", "--file-system", "--format=%T", str(upper)]).strip()
        raise LabError(
            f"cannot mount an overlay with its upper folder on {kind}: {error}",
            f"the lab needs root outside a container, and {upper.parent} on a disk with ext4, xfs or btrfs",
        ) from error


def unmount_below(folder: Path) -> None:
    """Leave no mount at or under `folder`."""
    for point in list_below(folder):
        # Lazy: a process that is just dying may still hold a file open; nobody can open a new one.
        tools.run(["umount", "--lazy", "--no-mtab", str(point)])


def _unescape(text: str) -> str:
    r"""Mountinfo writes space, tab, newline and backslash as \ooo. See proc_pid_mountinfo(5)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
