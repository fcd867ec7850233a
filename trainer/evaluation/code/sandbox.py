"""A place to run a program that nobody has read: bubblewrap's namespaces around one Python, with hard limits.

The program sees the interpreter and the C library, read-only, and one small folder in memory. It has no network, no
files of the machine, no environment, no privileges and no way back. What it proves about itself is probe.py's.
"""

import json
import os
import random
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kanctl.errors import MissingToolError
from kanctl.programs import find

from .seccomp import seccomp_filter

Verdict = Literal["passed", "failed", "timeout", "memory", "refused"]
INSIDE = Path(__file__).with_name("inside.py")
# Users 0x70000000 and above belong to nobody: systemd.io/UIDS-GIDS. One each, so each has its own count of processes.
FIRST_UID, UIDS = 0x70000000, 2**20
DETAIL_LETTERS = 200
TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What one program may use."""

    cpu_s: int = 5
    wall_s: float = 10.0
    memory_bytes: int = 512 << 20
    """Address space of each process, the interpreter's own included."""
    file_bytes: int = 16 << 20
    """The largest file, and all files together."""
    open_files: int = 32
    processes: int = 4
    """Processes and threads at one time."""
    output_bytes: int = 64 << 10
    """Of standard output; what comes after is dropped."""

    def __post_init__(self) -> None:
        if min(self.cpu_s, self.wall_s, self.memory_bytes, self.file_bytes, self.output_bytes) <= 0:
            raise ValueError(f"wanted limits above 0, found {self}")
        if self.open_files < 16 or self.processes < 1:
            raise ValueError(f"wanted at least 16 open files and 1 process, found {self}")

    def rlimits(self) -> dict[str, int]:
        """As setrlimit takes them."""
        return {
            "RLIMIT_CPU": self.cpu_s,
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_CORE": 0,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended. `passed` means that it ran to its last line without an error."""

    verdict: Verdict
    detail: str = ""
    """The last line of standard error; empty after `passed`."""
    output: bytes = b""
    """The beginning of standard output."""


class Sandbox:
    """Runs programs, one at a time or from several threads."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        """Raises MissingToolError without bubblewrap: nothing ever runs outside. probe.require_tight asks for more."""
        self.limits = limits or SandboxLimits()
        self._words = [find("bwrap", "bubblewrap"), *walls(self.limits)]
        self._filter = seccomp_filter()

    def run(self, source: bytes) -> Outcome:
        """Run a Python program to its end or its limits. Raises MissingToolError when the sandbox cannot be made."""
        token = secrets.token_hex(16)
        read_fd, write_fd = os.pipe()
        with ExitStack() as stack:
            order_fd = stack.enter_context(_in_memory(self._order(token) + source))
            filter_fd = stack.enter_context(_in_memory(self._filter or b""))
            report = stack.enter_context(os.fdopen(read_fd, "rb", buffering=0))
            with os.fdopen(write_fd, "wb"):
                inside = [f"/python/bin/{interpreter().name}", "-I", "-S", "-B", "/inside.py", str(write_fd)]
                process = subprocess.Popen(
                    [*self._words, *(["--seccomp", str(filter_fd)] if self._filter else []), *inside],
                    stdin=order_fd,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[write_fd, filter_fd],
                )
            stack.enter_context(process)
            # Ctrl-C must leave nothing behind; after an ordinary end there is nothing to kill.
            stack.callback(process.kill)
            said = _Said(process, report.fileno(), self.limits)
            said.listen()
        return self._judge(said, process.returncode, token)

    def _order(self, token: str) -> bytes:
        """The line that tells inside.py what to do before the program."""
        order = {
            "token": token,
            # Not the number that the program would look at first.
            "report_fd": random.SystemRandom().randrange(10, self.limits.open_files),
            "uid": spare_uid(),
            "limits": self.limits.rlimits(),
        }
        return json.dumps(order).encode() + b"\n"

    def _judge(self, said: "_Said", code: int, token: str) -> Outcome:
        ready, _, report = bytes(said.report).partition(b" ")
        detail = _one_line(said.errors)
        if ready != b"ready" and not said.timed_out:
            raise MissingToolError(
                f"bubblewrap could make no sandbox here, and nothing runs without one: {detail or code}",
                "bubblewrap 0.7 or newer; root on the machine itself, or user namespaces allowed there "
                "(sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)",
            )
        if said.timed_out or code == 128 + signal.SIGXCPU or (_killed(code) and said.seconds >= self.limits.cpu_s):
            return Outcome(verdict="timeout", detail=f"no end after {said.seconds:.0f} s", output=bytes(said.output))
        if report == token.encode():
            return Outcome(verdict="passed", output=bytes(said.output))
        if report in {b"memory", b"refused"}:
            verdict: Verdict = "memory" if report == b"memory" else "refused"
            return Outcome(verdict=verdict, detail=detail, output=bytes(said.output))
        if _killed(code):
            return Outcome(verdict="memory", detail="killed, for its memory", output=bytes(said.output))
        ended = f"ended with {code} before the end of the tests"
        return Outcome(verdict="failed", detail=detail or ended, output=bytes(said.output))


class _Said:
    """What comes out of a sandbox while it runs: the beginning of its output, the end of its errors, the report."""

    def __init__(self, process: "subprocess.Popen[bytes]", report_fd: int, limits: SandboxLimits) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.output, self.errors, self.report = bytearray(), bytearray(), bytearray()
        self.timed_out, self.seconds = False, 0.0
        self._process, self._limits = process, limits
        self._kept = {process.stdout.fileno(): self.output, process.stderr.fileno(): self.errors}
        self._kept[report_fd] = self.report

    def listen(self) -> None:
        """Until all of it has ended; at the end of its time the sandbox is killed, with everything inside."""
        start_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for fd in self._kept:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map():
                left_s = start_s + self._limits.wall_s - time.monotonic()
                if left_s <= 0 and not self.timed_out:
                    self.timed_out = True
                    # bwrap's child dies with it, and is the first process of its namespace: all others die with that.
                    self._process.kill()
                for key, _ in selector.select(max(0.0, left_s) if not self.timed_out else None):
                    if not self._take(key.fd):
                        selector.unregister(key.fd)
        self._end(start_s + self._limits.wall_s - time.monotonic())
        self.seconds = time.monotonic() - start_s

    def _end(self, left_s: float) -> None:
        """A program may close all that we listen to, and go on."""
        try:
            self._process.wait(max(0.5, left_s))
        except subprocess.TimeoutExpired:
            self.timed_out = True
            self._process.kill()
            self._process.wait()

    def _take(self, fd: int) -> bool:
        """Read what there is and keep what is wanted of it; False at the end."""
        block = os.read(fd, 1 << 16)
        kept = self._kept[fd]
        if kept is self.errors:
            kept += block
            del kept[:-TAIL_BYTES]
        else:
            most = self._limits.output_bytes if kept is self.output else TAIL_BYTES
            kept += block[: most - len(kept)]
        return bool(block)


@contextmanager
def _in_memory(content: bytes) -> Iterator[int]:
    """An open file without a name that stands at its beginning."""
    with os.fdopen(os.memfd_create("sandbox"), "wb") as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield file.fileno()


def interpreter() -> Path:
    """The running Python without its virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def walls(limits: SandboxLimits) -> list[str]:
    """bwrap's options. Source: bwrap(1). `--size` came with bubblewrap 0.7."""
    # Root takes no user namespace: in one it would stay root, whom no limit of processes holds. inside.py becomes
    # another user instead, and only for that it keeps two privileges.
    if spare_uid() is not None:
        own = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        own += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        own = ["--unshare-all", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
    return [
        *own,
        *("--die-with-parent", "--new-session", "--hostname", "sandbox"),
        *_library_words(),
        *_python_words(),
        *("--ro-bind", str(INSIDE), "/inside.py"),
        *("--dir", "/dev", "--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"),
        *("--size", str(limits.file_bytes), "--perms", "1777", "--tmpfs", "/tmp"),  # noqa: S108 - the sandbox's own
        # Last: the tree itself is a folder in memory, without a size.
        *("--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108 - the sandbox's own
        *("--clearenv", "--setenv", "LD_LIBRARY_PATH", "/python/lib"),
    ]


def _python_words() -> list[str]:
    """The interpreter's programs and library alone: the folder that holds them may be somebody's home."""
    words = ["--perms", "0755", "--dir", "/python"]
    for name in ("bin", "lib", "lib64"):
        words += ["--ro-bind-try", str(interpreter().parent.parent / name), f"/python/{name}"]
    return words


def _library_words() -> list[str]:
    """The C library and its loader: /usr/lib*, and /lib* as the links or folders that they are here."""
    # Named, or bwrap makes it for its own user alone.
    words = ["--perms", "0755", "--dir", "/usr"]
    for path in sorted([*Path("/usr").glob("lib*"), *Path("/").glob("lib*")]):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir() and path.name in {"lib", "lib32", "lib64", "libx32"}:
            words += ["--ro-bind", str(path), str(path)]
    return words


def spare_uid() -> int | None:
    """For root: a user that is nobody else's, out of those this machine or container has; None where there is none."""
    if os.geteuid() != 0:
        return None
    ranges = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if any(first <= FIRST_UID and first + count > FIRST_UID + UIDS for first, _, count in ranges):
        return FIRST_UID + secrets.randbelow(UIDS)
    first, _, count = max(ranges, key=lambda entry: entry[2])
    return first + count - 2 - secrets.randbelow(1000) if count > 2000 else None


def _killed(code: int) -> bool:
    return code in {128 + signal.SIGKILL, -signal.SIGKILL}


def _one_line(errors: bytes | bytearray) -> str:
    """The last line that says something, made printable: it is the program's own word."""
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:DETAIL_LETTERS])
