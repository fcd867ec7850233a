"""Run other programs: words in, text out, an error that shows what was said. Shared by all folders, like errors.py.

What is not here: SSH (cli/remote.py), Ansible (cli/run_ansible.py) and programs that outlive kanctl (lab/tools.py).
"""

import os
import shlex
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kanctl.errors import KanctlError, MissingToolError

# Many users' PATH lacks the sbin folders even under sudo; depmod, ip, nft and mke2fs live there.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class ProgramFailed(KanctlError):
    """A program ended with an error; the message shows the last lines it said."""


def find(program: str, package: str | None = None) -> str:
    """The program's full path. Raises MissingToolError with the line that installs its Debian package."""
    path = _look_up(program)
    if path is None:
        raise MissingToolError(
            f"wanted the program {program}, found none on PATH", f"apt-get install -y {package or program}"
        )
    return path


def require(packages: Mapping[str, str], purpose: str, *, with_recommended: bool = False) -> None:
    """Raises MissingToolError with the one command that installs every package (program -> package) that is missing."""
    missing = [program for program in packages if _look_up(program) is None]
    if missing:
        options = "" if with_recommended else "--no-install-recommends "
        raise MissingToolError(
            f"{purpose} needs {', '.join(missing)}, not found on this machine",
            f"apt-get install -y {options}{' '.join(sorted({packages[program] for program in missing}))}",
        )


def run(
    words: Sequence[str],
    *,
    package: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    ok_codes: Sequence[int] = (0,),
) -> str:
    """Run a program to its end and return its stdout. Raises ProgramFailed, MissingToolError.

    `environment` is added to our own; `package` brings the program where its name is another.
    """
    done = subprocess.run(
        [find(words[0], package), *words[1:]],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=cwd,
        env=_added(environment),
    )
    if done.returncode not in ok_codes:
        raise failed(words, done.returncode, done.stderr.strip() or done.stdout)
    return done.stdout


def run_with_progress(
    words: Sequence[str],
    *,
    on_line: Callable[[str], None],
    package: str | None = None,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a long program, passing on each line it says as it comes. Raises ProgramFailed, MissingToolError.

    Unlike with `run`, `environment` is all that it gets; None stands for our own.
    """
    code, said = _follow([find(words[0], package), *words[1:]], on_line, stdin=stdin, environment=environment)
    if code != 0:
        raise failed(words, code, said)


def run_logged(
    words: Sequence[str],
    *,
    log: Path,
    on_line: Callable[[str], None] = lambda _line: None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a long program, adding all it says to `log` and passing each line on. Raises ProgramFailed, MissingToolError.

    `environment` is added to our own.
    """
    with log.open("a", encoding="utf-8") as file:

        def keep(line: str) -> None:
            file.write(f"{line}\n")
            on_line(line)

        file.write(f"$ {shlex.join(words)}\n")
        code, said = _follow([find(words[0]), *words[1:]], keep, cwd=cwd, environment=_added(environment))
    if code != 0:
        raise failed(words, code, said, log)


def failed(words: Sequence[str], code: int, said: str, log: Path | None = None) -> ProgramFailed:
    """The error of a program that ended with `code`."""
    tail = "\n  ".join(said.strip().splitlines()[-8:]) or "it said nothing"
    command = shlex.join(words)
    shown = command if len(command) <= 300 else f"{command[:300]} ..."
    return ProgramFailed(f"`{shown}` ended with {code}:\n  {tail}", f"all it said is in {log}" if log else "")


def _look_up(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=":".join(SBIN))


def _added(environment: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return None if environment is None else {**os.environ, **environment}


def _follow(
    words: Sequence[str],
    on_line: Callable[[str], None],
    *,
    stdin: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a program to its end: its exit code and the last lines it said.

    It has a process group of its own: Ctrl-C reaches only us, and we end it with all its children.
    """
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=cwd,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=40)
    try:
        # A program that ended before it read all says itself why.
        with suppress(BrokenPipeError), process.stdin as file:
            file.write(stdin)
        for line in process.stdout:
            last.append(line.rstrip())
            on_line(line.rstrip())
        process.wait()
    finally:
        _end_group(process)
    return process.returncode, "\n".join(last)


def _end_group(process: "subprocess.Popen[str]") -> None:
    """Nothing to do after an ordinary end; otherwise the program goes with all its children."""
    if process.poll() is None:
        # Not a polite signal: mmdebstrap answers none that reaches it alone, and the caller removes what it made.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
