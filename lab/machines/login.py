"""The way into a machine: whether it answers, waiting until it does, and one command run on it."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kanctl.errors import NodeUnreachableError

from ..errors import LabError
from ..model import STATE_ROOT, check_name
from ..state import LabPaths
from ..status import answers_ssh, login_words, require_readable_key
from . import power, qemu
from .state import LOOPBACK, MachinePaths, MachinesRecord, machine, require_record

# An idle two-core host needs 50 s; one that builds a kernel beside it five times that.
BOOT_TIMEOUT_S = 600
POLL_S = 2
PROGRESS_EVERY_S = 20
READ_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def answers(record: MachinesRecord, node_name: str) -> bool:
    """Whether the machine's SSH server speaks; QEMU itself accepts the connection in any case."""
    return answers_ssh(LOOPBACK, record.ports[node_name], patience_s=5)


def ssh_words(name: str, node_name: str, command: list[str], state_root: Path = STATE_ROOT) -> list[str]:
    """The ssh command that runs `command` on a machine, or opens a shell.

    Raises LabMissing, LabSpecInvalid for a wrong node, NodeUnreachableError when the machine does not answer.
    """
    paths = LabPaths(name=check_name(name), state_root=state_root)
    record = require_record(paths)
    port = record.ports[record.require_node(node_name)]
    require_readable_key(paths)
    if not answers(record, node_name):
        raise NodeUnreachableError(
            f"{node_name} ({LOOPBACK}:{port}) does not answer over SSH", f"kanctl lab up --name {name}"
        )
    return login_words(paths, LOOPBACK, port, command)


def run(name: str, node_name: str, command: str, *, timeout_s: float = 120, state_root: Path = STATE_ROOT) -> str:
    """What the command wrote to its stdout, trimmed. Raises LabError when it fails or takes too long."""
    words = ssh_words(name, node_name, [command], state_root)
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{node_name}: `{command}` took more than {timeout_s:g} s") from error
    if done.returncode != 0:
        raise LabError(f"{node_name}: `{command}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def wait_for_ssh(
    name: str,
    node_name: str,
    *,
    not_boot_id: str = "",
    timeout_s: float = BOOT_TIMEOUT_S,
    progress: Callable[[str], None] = print,
    state_root: Path = STATE_ROOT,
) -> str:
    """Wait until commands run on the machine in another boot than `not_boot_id`; returns that boot's id.

    Raises LabError, with the last lines of the serial log, when the time is over or the machine is off.
    """
    paths = LabPaths(name=check_name(name), state_root=state_root)
    record = require_record(paths)
    wanted = machine(paths, record.require_node(node_name))
    started = reported = time.monotonic()
    while (boot_id := _read_boot_id(paths, record, node_name)) in {"", not_boot_id}:
        waited_s = time.monotonic() - started
        _require_life(wanted, waited_s)
        if waited_s > timeout_s:
            raise LabError(
                f"{node_name}: no SSH within {timeout_s:.0f} s; its serial line said last:\n"
                f"{power.tail(wanted.serial_log)}",
                f"see {wanted.serial_log}",
            )
        if time.monotonic() - reported > PROGRESS_EVERY_S:
            reported = time.monotonic()
            progress(f"{node_name}: {waited_s:.0f} s, {power.tail(wanted.serial_log, 1).strip()[:90]}")
        time.sleep(POLL_S)
    return boot_id


def _require_life(wanted: MachinePaths, waited_s: float) -> None:
    """Raises LabError for a machine that will not answer however long one waits."""
    if power.find_pid(wanted) is None:
        said = f"serial line:\n{power.tail(wanted.serial_log)}\nQEMU:\n{power.tail(wanted.qemu_log, 4)}"
        raise LabError(f"{wanted.name}: its QEMU ended after {waited_s:.0f} s\n{said}", f"see {wanted.serial_log}")
    if qemu.run_state(wanted) == "io-error":
        raise LabError(
            f"{wanted.name}: stopped because {wanted.disk} could not be written; is the disk full?",
            f"df -h {wanted.disk.parent}; after making room kanctl lab up --name {wanted.node.lab.name} goes on",
        )


def _read_boot_id(paths: LabPaths, record: MachinesRecord, node_name: str) -> str:
    """The id of the boot that the machine is in, empty when it does not answer."""
    if not answers(record, node_name):
        return ""
    words = login_words(paths, LOOPBACK, record.ports[node_name], [READ_BOOT_ID])
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
