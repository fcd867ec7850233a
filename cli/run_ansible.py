"""The only door to Ansible: runs a playbook with ansible-runner and hands its events on, whatever they mean.

Ansible's workers are sessions of their own, so neither Ctrl-C nor the death of kanctl ends the task that runs on a
node. Each run therefore carries a mark in its environment, by which its processes are found and waited for.
"""

import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from kanctl.errors import MissingToolError

from .context import user_data_dir

MARK = "KANCTL_RUN"
# How often processes are looked at while one is waited for.
POLL_S = 0.2


def run_playbook(
    playbook: Path,
    inventory: Path,
    *,
    on_event: Callable[[dict[str, Any]], None],
    on_stopping: Callable[[], None] = lambda: None,
    mark: str | None = None,
    limit: Sequence[str] = (),
    tags: Sequence[str] = (),
    check: bool = False,
    diff: bool = False,
    variables: Mapping[str, object] | None = None,
) -> str:
    """Run a playbook to its end; gives ansible-runner's status: successful, failed or canceled.

    At the first Ctrl-C (or SIGTERM) no further task is started, `on_stopping` is called, and the tasks that run on
    nodes are waited for; at the second they are left. Both give `canceled`. `mark` names the run for `leftovers`.
    Must be called from the main thread, which is where Python hears of signals. `variables` outrank the inventory's.

    Raises:
        MissingToolError: without the ansible-playbook of this same Python.
    """
    import ansible_runner

    binary = Path(sys.executable).parent / "ansible-playbook"
    if not binary.is_file():
        raise MissingToolError(
            f"wanted ansible-playbook beside {sys.executable}, found none", "pip install ansible-core"
        )

    def keep(event: dict[str, Any]) -> bool:
        on_event(event)
        return False  # so that ansible-runner writes no file of its own for each event

    mark = mark or uuid.uuid4().hex
    words = [flag for flag, wanted in (("--check", check), ("--diff", diff)) if wanted]
    with _Interrupts(on_stopping) as interrupts, _scratch(mark) as folder:
        runner = ansible_runner.run(  # type: ignore[no-untyped-call]
            private_data_dir=str(folder),
            playbook=str(playbook),
            inventory=str(inventory.resolve()),
            limit=",".join(limit) or None,
            tags=",".join(tags) or None,
            cmdline=" ".join(words) or None,
            extravars=dict(variables or {}),
            envvars=_environment(playbook, binary, mark, folder),
            # The timeout is how late a Ctrl-C may be heard.
            settings={"suppress_env_files": True, "pexpect_timeout": 1},
            event_handler=keep,
            cancel_callback=interrupts.are_heard,
            quiet=True,
        )
        if interrupts.count:
            _await_tasks(mark, interrupts)
            return "canceled"
    return str(runner.status)


def leftovers(mark: str) -> list[int]:
    """Processes of Ansible that still work for the run of that mark; `ps e` shows the same environment."""
    wanted = f"{MARK}={mark}".encode()
    return [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit()
        # SSH connections that are kept for the next run carry the mark too, and are none of them.
        and b"ansible-playbook" in _read(folder / "cmdline")
        and wanted in _read(folder / "environ").split(b"\0")
    ]


def forget(mark: str) -> None:
    """Remove what a run of that mark left on this machine; it holds the environment, so it does not stay."""
    shutil.rmtree(_scratch_dir(mark), ignore_errors=True)


class _Interrupts:
    """Counts Ctrl-C and SIGTERM while a playbook runs, which an exception in the middle of a read would break."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.count = 0
        self._on_first: Callable[[], None] | None = on_first

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def are_heard(self) -> bool:
        if self.count and self._on_first is not None:
            self._on_first()
            self._on_first = None
        return self.count > 0


def _await_tasks(mark: str, interrupts: _Interrupts) -> None:
    while (left := leftovers(mark)) and interrupts.count < 2:
        time.sleep(POLL_S)
    for pid in left:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue


def _scratch_dir(mark: str) -> Path:
    return user_data_dir() / "ansible" / mark


@contextmanager
def _scratch(mark: str) -> Iterator[Path]:
    folder = _scratch_dir(mark)
    folder.mkdir(parents=True, mode=0o700)
    try:
        yield folder.resolve()
    finally:
        forget(mark)


def _environment(playbook: Path, binary: Path, mark: str, scratch: Path) -> dict[str, str]:
    config = playbook.parent / "ansible.cfg"
    return {
        **({"ANSIBLE_CONFIG": str(config)} if config.is_file() else {}),
        # The ansible-playbook of this same Python, whatever else the user has on PATH.
        "PATH": f"{binary.parent}:{os.environ.get('PATH', os.defpath)}",
        # ansible-runner would switch the check of host keys off, against ansible.cfg and the inventory.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        # Ansible refuses to start without UTF-8; and what ssh says is recognised in English.
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1",
        # What Ansible leaves behind when it is stopped goes with the scratch folder.
        "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
        MARK: mark,
    }


def _read(path: Path) -> bytes:
    """A file of /proc; empty when the process is gone, or is somebody else's."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
