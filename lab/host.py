"""What a lab changes on the machine as a whole, and how that is given back: one lock, ip_forward, /run/netns.

Nothing else of the host is touched; every other object belongs to one lab and goes with it.
"""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kanctl.programs import ProgramFailed

from . import mounts, network, tools
from .errors import LabError
from .state import write_atomically

RUN_DIR = Path("/run/kanctl")
FOUND = RUN_DIR / "host-as-found.json"
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def require_root() -> None:
    """Raises LabError for anyone but root."""
    if os.geteuid() != 0:
        raise LabError("the lab makes containers and machines and needs root", "run the same command with sudo")


def require_ability() -> None:
    """Raises LabError, MissingToolError where this machine cannot hold a lab: no root, no tools, no containers.

    Changes nothing; a caller with another way (training on this machine alone) can ask first.
    """
    require_root()
    tools.require_all()
    try:
        tools.run(["unshare", "--net", "--mount", "true"])
    except ProgramFailed as error:
        raise LabError(
            f"root may not make containers here, as inside most containers: {error}",
            "run the lab on a real or a virtual machine",
        ) from error


@contextmanager
def locked(progress: Callable[[str], None]) -> Iterator[None]:
    """One lab command at a time on this machine; the lock goes with the process, however it ends."""
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    with (RUN_DIR / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another kanctl lab command on this machine")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def plain_umask() -> Iterator[None]:
    """Within the block new files are readable by all: the users inside a node need the files that we put there."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Within the block a full or read-only disk is a LabError that says where."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = error.filename or folder
        raise LabError(f"cannot write {where}: {error.strerror}", f"free space: df -h {folder}") from error


def prepare() -> None:
    """Switch IPv4 forwarding on, after writing down what was found. The first lab's note stands for all."""
    boot_id = BOOT_ID.read_text().strip()
    # A note from before a reboot of the host says nothing about the host now.
    if _read_found().get("boot_id") != boot_id:
        found = {
            "boot_id": boot_id,
            "ip_forward": IP_FORWARD.read_text().strip(),
            "netns_dir_was_mounted": mounts.is_mount_point(network.NETNS_DIR),
        }
        write_atomically(FOUND, json.dumps(found) + "\n")
    if IP_FORWARD.read_text().strip() != "1":
        IP_FORWARD.write_text("1\n")


def restore() -> None:
    """Give the host back as found, once no lab is left on it."""
    found = _read_found()
    if network.lab_bridges() or not found:
        return
    if found.get("boot_id") == BOOT_ID.read_text().strip():
        if IP_FORWARD.read_text().strip() != found["ip_forward"]:
            IP_FORWARD.write_text(f"{found['ip_forward']}\n")
        # iproute2 mounts this folder onto itself for the first namespace and never takes that back.
        is_ours = not found["netns_dir_was_mounted"] and mounts.is_mount_point(network.NETNS_DIR)
        if is_ours and not any(network.NETNS_DIR.iterdir()):
            tools.run(["umount", str(network.NETNS_DIR)])
    FOUND.unlink()


def _read_found() -> dict[str, object]:
    try:
        document = json.loads(FOUND.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def is_booted_with_systemd() -> bool:
    """Whether systemd is PID 1 of this machine. Source: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()
