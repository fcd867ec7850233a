"""Start a kernel in QEMU by software emulation, time counting instructions, and take what it says. An edge file.

`-icount shift=0,sleep=off`: one guest nanosecond is one instruction, so figures repeat on any host, however busy.
Idle time is skipped, which makes latencies without load meaningless (586,115 was seen where 8,000 is true).
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kanctl.programs import find

from ..errors import BootTestFailed

# What a kernel needs to talk to us and to end; a panic ends QEMU, because -no-reboot turns the reboot into an exit.
ARGUMENTS = ("console=ttyS0", "panic=-1", "quiet")
END = "kanctl: done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The emulated machine: one core, since more would not repeat."""

    memory_mib: int = 1024
    limit_s: int = 900


def boot(
    image: Path, initramfs: Path, arguments: Sequence[str], machine: Machine, log: Path, on_line: Callable[[str], None]
) -> tuple[str, float]:
    """Run until the guest powers off; gives its console and the seconds that passed here.

    Raises:
        BootTestFailed: it did not end in time, or without our last line; the message has its last lines.
    """
    words = [
        *(find("qemu-system-x86_64", "qemu-system-x86"), "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "1"),
        *("-m", str(machine.memory_mib), "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"),
        *("-icount", "shift=0,sleep=off", "-kernel", str(image), "-initrd", str(initramfs)),
        *("-append", " ".join([*ARGUMENTS, *arguments])),
    ]
    started_s = time.monotonic()
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
        try:
            ended = _follow(process, log, started_s + machine.limit_s, on_line)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    text = log.read_text(errors="replace").replace("\r", "")
    seconds = time.monotonic() - started_s
    if END not in text:
        what = "ended early (a panic ends it)" if ended else f"did not end within {machine.limit_s} s"
        tail = "\n  ".join(text.strip().splitlines()[-12:]) or "it said nothing"
        raise BootTestFailed(f"{image.name} {what}; its last lines:\n  {tail}", f"its whole console is in {log}")
    return text, seconds


def _follow(process: "subprocess.Popen[bytes]", log: Path, deadline_s: float, on_line: Callable[[str], None]) -> bool:
    """Pass on new lines until the guest ends; False when the time is over."""
    seen = 0
    while True:
        ended = process.poll() is not None
        lines = log.read_text(errors="replace").replace("\r", "").split("\n")
        for line in lines[seen:-1]:
            on_line(line)
        seen = max(seen, len(lines) - 1)
        if ended:
            return True
        if time.monotonic() > deadline_s:
            return False
        time.sleep(1)
