"""Power of one machine: on, cut, reset, and its state kept and taken up again. Shown by `ps -ef | grep kanctl-`."""

import re
import time
from pathlib import Path

from .. import detached, processes, tools
from ..errors import LabError
from ..model import STATE_ROOT, check_name
from ..state import LabPaths
from . import qemu
from .state import MachinePaths, MachinesRecord, machine, require_record

# QEMU itself starts within a second; taking up a saved state reads up to a gigabyte from disk.
START_TIMEOUT_S = 120
SAVE_TIMEOUT_S = 300
# systemd colours what it says on the serial line.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1bc")


def find_pid(wanted: MachinePaths) -> int | None:
    """The process id of the machine's QEMU, None when it is off."""
    return next((pid for pid, socket in _running() if socket == str(wanted.qmp_socket)), None)


def find_pids(paths: LabPaths) -> list[int]:
    """Every QEMU of the lab, also when the lab's files are gone."""
    return [pid for pid, socket in _running() if Path(socket).is_relative_to(paths.folder)]


def start(wanted: MachinePaths, record: MachinesRecord, load_state: str | None = None) -> None:
    """Power the machine on; returns once QEMU runs, long before the machine answers. Raises LabError."""
    words = qemu.machine_words(wanted, record.ports[wanted.name], load_state)
    detached.start(wanted.guest, [tools.find(words[0]), *words[1:]], wanted.qemu_log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while qemu.run_state(wanted) == "silent":
        time.sleep(0.2)
        has_had_time = time.monotonic() > deadline - START_TIMEOUT_S + 2
        if time.monotonic() > deadline or (has_had_time and find_pid(wanted) is None):
            raise LabError(
                f"{wanted.name}: QEMU did not start; it said:\n{tail(wanted.qemu_log)}", f"see {wanted.qemu_log}"
            )


def power_on(name: str, node_name: str, *, load_state: str | None = None, state_root: Path = STATE_ROOT) -> None:
    """Switch a machine on that is off; `load_state` takes up a state kept by `save`. Raises LabError."""
    wanted, record = _look_up(name, node_name, state_root)
    if find_pid(wanted) is not None:
        raise LabError(f"{node_name} of lab {name} is on already", "power_cut comes first")
    start(wanted, record, load_state)


def power_cut(name: str, node_name: str, *, state_root: Path = STATE_ROOT) -> None:
    """Cut the power: nothing inside gets a chance to write. Nothing happens when it is off."""
    wanted, _ = _look_up(name, node_name, state_root)
    kill([pid] if (pid := find_pid(wanted)) else [])


def reset(name: str, node_name: str, *, state_root: Path = STATE_ROOT) -> None:
    """Press the reset button. Raises LabError when the machine is off."""
    qemu.command(_look_up(name, node_name, state_root)[0], "system_reset")


def save(name: str, node_name: str, tag: str, *, state_root: Path = STATE_ROOT) -> None:
    """Keep memory and disk of a running machine under `tag`, on its own disk. Raises LabError."""
    wanted, _ = _look_up(name, node_name, state_root)
    # Only the human monitor has an answer that waits for the end of it.
    said = qemu.command(wanted, "human-monitor-command", timeout_s=SAVE_TIMEOUT_S, **{"command-line": f"savevm {tag}"})
    if said:
        raise LabError(f"{node_name}: the state could not be kept: {str(said).strip()}", f"df -h {state_root}")


def load(name: str, node_name: str, tag: str, *, state_root: Path = STATE_ROOT) -> None:
    """Take up the state kept under `tag`, in seconds where a boot takes a minute. The serial log goes on."""
    power_cut(name, node_name, state_root=state_root)
    power_on(name, node_name, load_state=tag, state_root=state_root)


def serial_log(name: str, node_name: str, *, state_root: Path = STATE_ROOT) -> str:
    """Everything that GRUB and the kernels said on the serial line since the machine was made."""
    return _read(_look_up(name, node_name, state_root)[0].serial_log)


def kill(pids: list[int]) -> None:
    """End QEMU processes at once and wait until they are gone."""
    # Not the polite signal: QEMU would close the disk in order, which a power cut does not.
    processes.kill(pids)
    deadline = time.monotonic() + 15
    while left := [pid for pid in pids if processes.is_alive(pid)]:
        if time.monotonic() > deadline:
            raise LabError(f"QEMU processes {left} do not end when killed", "wait for their disk, then again")
        time.sleep(0.05)


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, indented."""
    said = [line.strip() for line in _read(log).splitlines() if line.strip()][-lines:]
    return "\n".join(f"  {line}" for line in said) or "  nothing"


def _read(log: Path) -> str:
    """A log without the colours and the carriage returns of a serial line; empty when there is none."""
    # As bytes: read as text, each return would be a line of its own.
    text = log.read_bytes().decode(errors="replace") if log.is_file() else ""
    return ESCAPES.sub("", text.replace("\r", ""))


def _look_up(name: str, node_name: str, state_root: Path) -> tuple[MachinePaths, MachinesRecord]:
    paths = LabPaths(name=check_name(name), state_root=state_root)
    record = require_record(paths)
    return machine(paths, record.require_node(node_name)), record


def _running() -> list[tuple[int, str]]:
    """Every QEMU that a lab started, with its control socket."""
    found = []
    for pid, words in processes.command_lines():
        if Path(words[0] if words else "").name == qemu.PROGRAM and "-qmp" in words:
            found.append((pid, words[words.index("-qmp") + 1].removeprefix("unix:").partition(",")[0]))
    return found
