"""QEMU's command line and its control socket, for a machine without KVM."""

import json
import socket
from pathlib import Path
from typing import TextIO

from ..errors import LabError
from .state import LOOPBACK, MachinePaths

PROGRAM = "qemu-system-x86_64"
# THP and several caches switch themselves off below 512 MiB; 1 GiB is what the kernel tests measure with.
MEMORY_MIB = 1024
CPUS = 2
# What QEMU needs itself: the translated code, and the rest.
CODE_MIB = 96
HOST_MEMORY_MIB = MEMORY_MIB + CODE_MIB + 150
# tcg by name: on some hosts /dev/kvm opens and guests hang, and results must not depend on that.
# tb-size: with QEMU's own choice (1 GiB) a reboot took 57 s instead of 46, because every write over code of the last
# kernel that is still translated is slow, and the process grew to 1.6 GiB instead of 0.6.
# Nehalem: the oldest model with what Debian's and our kernels want; richer ones only cost translation time.
COMMON = (
    *("-no-user-config", "-nodefaults", "-display", "none", "-vga", "none"),
    *("-machine", "pc", "-accel", f"tcg,thread=multi,tb-size={CODE_MIB}", "-cpu", "Nehalem"),
    *("-smp", str(CPUS), "-m", str(MEMORY_MIB), "-device", "virtio-rng-pci"),
)


def machine_words(machine: MachinePaths, port: int, load_state: str | None = None) -> list[str]:
    """The command that powers a machine on: its firmware finds GRUB on the disk. `load_state` resumes a saved state."""
    words = [
        PROGRAM,
        *("-name", machine.guest),
        *COMMON,
        # unsafe: what the guest flushed survives the death of QEMU, which is a machine's power cut, but not the host's.
        *("-drive", f"if=none,id=disk,file={machine.disk},format=qcow2,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=0"),
        *("-drive", f"if=none,id=seed,file={machine.seed},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=seed,serial=kanctl-seed"),
        *("-netdev", f"user,id=net,ipv6=off,hostname={machine.name},hostfwd=tcp:{LOOPBACK}:{port}-:22"),
        # Without its boot ROM, which the firmware would run first.
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-chardev", f"file,id=serial,path={machine.serial_log},append=on", "-serial", "chardev:serial"),
        *("-qmp", f"unix:{machine.qmp_socket},server=on,wait=off"),
        *("-device", "i6300esb", "-action", "watchdog=reset"),
    ]
    return words if load_state is None else [*words, "-loadvm", load_state]


def finish_words(*, name: str, disk: Path, kernel: Path, initrd: Path) -> list[str]:
    """The command that boots a new disk once, with kernel and initrd handed in because it has no GRUB yet."""
    return [
        PROGRAM,
        *("-name", name),
        *COMMON,
        *("-drive", f"if=none,id=disk,file={disk},format=raw,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=disk", "-serial", "stdio", "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", "root=/dev/vda1 rw console=ttyS0 panic=1 init=/usr/lib/kanctl-lab/finish"),
    ]


def command(machine: MachinePaths, name: str, timeout_s: float = 10, **arguments: object) -> object:
    """Give QEMU one command and return its answer. Raises LabError.

    Source: QEMU's docs/interop/qmp-spec.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(machine.qmp_socket))
            with connection.makefile("rw") as stream:
                stream.readline()
                _ask(stream, {"execute": "qmp_capabilities"})
                return _ask(stream, {"execute": name, "arguments": arguments})
    except (OSError, ValueError) as error:
        raise LabError(
            f"{machine.guest}: QEMU did not answer {name!r} at {machine.qmp_socket}: {error}", f"see {machine.qemu_log}"
        ) from error


def run_state(machine: MachinePaths) -> str:
    """QEMU's own word for the machine: running, io-error (its disk could not be written), ...; silent for no answer."""
    try:
        answer = command(machine, "query-status")
    except LabError:
        return "silent"
    return str(answer["status"]) if isinstance(answer, dict) else "silent"


def _ask(stream: TextIO, message: dict[str, object]) -> object:
    stream.write(json.dumps(message) + "\n")
    stream.flush()
    # Events may come between a command and its answer.
    for line in stream:
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise ValueError(answer["error"]["desc"])
    raise ValueError("the connection ended")
