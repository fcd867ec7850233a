"""The lab's system tools: which package brings each, and programs that outlive kanctl. All else: kanctl/programs.py."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kanctl import programs

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


def run(words: Sequence[str], *, stdin: str = "", ok_codes: Sequence[int] = (0,)) -> str:
    """Run a program to its end and return its stdout. Raises ProgramFailed, MissingToolError."""
    return programs.run(words, package=package_of(words[0]), stdin=stdin, ok_codes=ok_codes)


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
    """The program's full path. Raises MissingToolError."""
    return programs.find(program, package_of(program))


def package_of(program: str) -> str | None:
    """The Debian package that brings a tool of the lab; None for one that every system has."""
    return (PACKAGES | MACHINE_PACKAGES).get(program)


def require_all(needed: Mapping[str, str] = PACKAGES) -> None:
    """Raises MissingToolError with the one command that installs every package that is missing."""
    programs.require(needed, "the lab", with_recommended=True)
