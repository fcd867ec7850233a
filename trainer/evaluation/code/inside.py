"""The first thing that runs inside the sandbox: it takes its limits, runs one program, and reports how it ended.

sandbox.py starts it as `python -I -S inside.py REPORT_FD` and gives on stdin a line of JSON and then the program. It
is mounted by itself, so it imports nothing of kanctl.
"""

import errno
import json
import os
import resource
import sys
import traceback
import types
from typing import Any, NoReturn

# What the kernel answers where the sandbox has no way: no network, no place to write, no more processes or files.
REFUSALS = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN),
        *(errno.EAGAIN, errno.ENOSPC, errno.EFBIG, errno.EMFILE, errno.ENOSYS),
    }
)


def take_limits(order: dict[str, Any]) -> None:
    """Become another user where we are root, then set the limits. None of it can be taken back."""
    if order["uid"] is not None:
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])
    for name, value in order["limits"].items():
        # One second more until the kernel kills, or a program that outlived its time could not be told from others.
        most = value + 1 if name == "RLIMIT_CPU" else value
        resource.setrlimit(getattr(resource, name), (value, most))


class Trial:
    """What the program raises ends here, whatever it is; `verdict` is `passed`, `failed`, `memory` or `refused`."""

    verdict = "failed"

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is None:
            self.verdict = "passed"
        elif isinstance(error, MemoryError):
            self.verdict = "memory"
        elif isinstance(error, OSError) and error.errno in REFUSALS:
            self.verdict = "refused"
        if error is not None:
            # format_exception_only bears with errors whose own text raises.
            lines = traceback.format_exception_only(error)
            os.write(2, f"\n{lines[-1].strip()[:300]}\n".encode(errors="replace"))
        return True


def run_program(source: bytes) -> str:
    """The verdict; what went wrong is the last line on stderr."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    with Trial() as trial:
        # Running what was written is the purpose; the walls around this process are why it may be.
        exec(compile(source, "program", "exec"), module.__dict__)  # noqa: S102
        sys.stdout.flush()
    return trial.verdict


def main() -> NoReturn:
    """Take the order, run, report; ends the process without any clean-up that the program could have a hand in."""
    # Taken now: a program may replace what the modules hold.
    write, leave, whoami, report_fd = os.write, os._exit, os.getpid, int(sys.argv[1])
    header, _, source = sys.stdin.buffer.read().partition(b"\n")
    order = json.loads(header)
    token = order["token"].encode()
    take_limits(order)
    with open("/dev/null", "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    hidden_fd = order["report_fd"]
    if hidden_fd != report_fd:
        os.dup2(report_fd, hidden_fd)
        os.close(report_fd)
    os.set_inheritable(hidden_fd, False)
    write(hidden_fd, b"ready ")
    own_pid = whoami()
    verdict = run_program(source)
    if whoami() != own_pid:
        # A child that the program forked has come to the end too; the verdict is its parent's.
        leave(1)
    write(hidden_fd, token if verdict == "passed" else verdict.encode())
    leave(0 if verdict == "passed" else 1)


if __name__ == "__main__":
    main()
