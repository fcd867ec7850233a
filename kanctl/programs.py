"""Run other programs: words in, text out, an error that shows what was said. Shared by all folders, like errors.py.

What is not here: SSH (cli/remote.py), Ansible (cli/run_ansible.py) and programs that outlive kanctl (lab/tools.py).
"""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kanctl.errors import KanctlError, MissingToolError

# Many users' PATH lacks the sbin folders even under sudo; depmod, nft and mke2fs live there.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class ProgramFailed(KanctlError):
    """A program ended with an error; the message shows the last lines it said."""


def find(program: str, package: str | None = None) -> str:
    """The program's full path. Raises MissingToolError with the line that installs its Debian package."""
    path = shutil.which(program) or shutil.which(program, path=":".join(SBIN))
    if path is None:
        raise MissingToolError(
            f"wanted the program {program}, found none on PATH", f"apt-get install -y {package or program}"
        )
    return path


def require(packages: Mapping[str, str], purpose: str) -> None:
    """Raises MissingToolError with the one command that installs every package that is missing."""
    missing = [name for name in packages if not (shutil.which(name) or shutil.which(name, path=":".join(SBIN)))]
    if missing:
        names = sorted({packages[name] for name in missing})
        raise MissingToolError(
            f"{purpose} needs {', '.join(missing)}, not found on this machine",
            f"apt-get install -y --no-install-recommends {' '.join(names)}",
        )


def run(
    words: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    ok_codes: Sequence[int] = (0,),
) -> str:
    """Run a program to its end and return its stdout. Raises ProgramFailed, MissingToolError."""
    done = subprocess.run(
        [find(words[0]), *words[1:]],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=cwd,
        env=None if environment is None else {**os.environ, **environment},
    )
    if done.returncode not in ok_codes:
        raise failed(words, done.returncode, done.stderr.strip() or done.stdout)
    return done.stdout


def run_logged(
    words: Sequence[str],
    *,
    log: Path,
    on_line: Callable[[str], None] = lambda _line: None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a long program, adding all it says to `log` and passing each line on. Raises ProgramFailed.

    It has a process group of its own: Ctrl-C reaches only us, and we end it with all its children.
    """
    said: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(words)}\n")
        process = subprocess.Popen(
            [find(words[0]), *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                said = [*said[-40:], line.rstrip()]
                on_line(line.rstrip())
            process.wait()
        finally:
            end_group(process)
    if process.returncode != 0:
        raise failed(words, process.returncode, "\n".join(said), log)


def end_group(process: "subprocess.Popen[str]") -> None:
    """Nothing to do after an ordinary end; otherwise the program goes with all its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def failed(words: Sequence[str], code: int, said: str, log: Path | None = None) -> ProgramFailed:
    """The error of a program that ended with `code`."""
    tail = "\n  ".join(said.strip().splitlines()[-8:]) or "it said nothing"
    command = shlex.join(words)
    shown = command if len(command) <= 300 else f"{command[:300]} ..."
    return ProgramFailed(f"`{shown}` ended with {code}:\n  {tail}", f"all it said is in {log}" if log else "")
