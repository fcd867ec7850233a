"""The one place of the lab that runs other programs: words in, text out, an error that shows what was said."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import LabToolsMissing, ToolFailed

# Program -> the Debian package that brings it, for containers and for machines.
PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "mount": "mount",
}
MACHINE_PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
# Many users' PATH lacks the sbin folders even under sudo; ip and nft live there.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def run(words: Sequence[str], *, stdin: str = "", ok_codes: Sequence[int] = (0,)) -> str:
    """Run a program to its end and return its stdout. Raises ToolFailed, LabToolsMissing."""
    done = subprocess.run([find(words[0]), *words[1:]], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode not in ok_codes:
        raise _failed(words, done.returncode, done.stderr or done.stdout)
    return done.stdout


def run_with_progress(
    words: Sequence[str], *, stdin: str, environment: Mapping[str, str], on_line: Callable[[str], None]
) -> None:
    """Run a long program, passing each line it says on as it comes. Raises ToolFailed with the last ones.

    It has a process group of its own, so that Ctrl-C reaches only us and we end it with all its children.
    """
    process = subprocess.Popen(
        [find(words[0]), *words[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said: list[str] = []
    try:
        process.stdin.write(stdin)
        process.stdin.close()
        for line in process.stdout:
            said.append(line.rstrip())
            on_line(line.rstrip())
        process.wait()
    finally:
        _end_group(process)
    if process.returncode != 0:
        raise _failed(words, process.returncode, "\n".join(said))


def start(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program that the caller waits for; it says what it says where the caller does."""
    return subprocess.Popen([find(words[0]), *words[1:]], env=dict(environment), stdin=subprocess.DEVNULL, cwd="/")


def start_detached(words: Sequence[str], log: Path) -> None:
    """Start a program that outlives this one and its terminal, and adds what it says to `log`."""
    with log.open("ab") as file:
        subprocess.run(
            [find("setsid"), "--fork", *words], stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/", check=True
        )


def find(program: str) -> str:
    """The program's full path. Raises LabToolsMissing."""
    path = shutil.which(program) or shutil.which(program, path=":".join(SBIN))
    if path is None:
        raise LabToolsMissing(
            f"wanted the program {program}, found none on PATH",
            f"apt-get install -y {(PACKAGES | MACHINE_PACKAGES).get(program, program)}",
        )
    return path


def require_all(needed: Mapping[str, str] = PACKAGES) -> None:
    """Raises LabToolsMissing with the one command that installs every package that is missing."""
    missing = [name for name in needed if not (shutil.which(name) or shutil.which(name, path=":".join(SBIN)))]
    if missing:
        packages = sorted({needed[name] for name in missing})
        raise LabToolsMissing(
            f"the lab needs {', '.join(missing)}, not found on this machine",
            f"apt-get install -y {' '.join(packages)}",
        )


def _end_group(process: subprocess.Popen[str]) -> None:
    """Nothing to do after an ordinary end; otherwise the program goes with all its children."""
    if process.poll() is None:
        # Not a polite signal: mmdebstrap answers none that reaches it alone, and the caller removes what it made.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _failed(words: Sequence[str], code: int, said: str) -> ToolFailed:
    tail = "\n  ".join(said.strip().splitlines()[-6:]) or "it said nothing"
    command = shlex.join(words)
    shown = command if len(command) <= 300 else f"{command[:300]} ..."
    return ToolFailed(f"`{shown}` ended with {code}:\n  {tail}")
