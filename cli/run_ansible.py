"""The only door to Ansible: runs a playbook with ansible-runner and hands its events on, whatever they mean."""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kanctl.errors import MissingToolError


def run_playbook(
    playbook: Path,
    inventory: Path,
    *,
    on_event: Callable[[dict[str, Any]], None],
    limit: Sequence[str] = (),
    tags: Sequence[str] = (),
    check: bool = False,
    diff: bool = False,
) -> str:
    """Run a playbook to its end; gives ansible-runner's status: successful, failed, canceled, timeout.

    Ctrl-C ends the playbook's processes first and gives `canceled`. Raises MissingToolError without ansible-playbook.
    """
    import ansible_runner

    binary = Path(sys.executable).parent / "ansible-playbook"
    if not binary.is_file():
        raise MissingToolError(
            f"wanted ansible-playbook beside {sys.executable}, found none", "pip install ansible-core"
        )

    def keep(event: dict[str, Any]) -> bool:
        on_event(event)
        return True

    words = [flag for flag, wanted in (("--check", check), ("--diff", diff)) if wanted]
    with tempfile.TemporaryDirectory(prefix="kanctl-ansible-") as folder:
        runner = ansible_runner.run(  # type: ignore[no-untyped-call]
            private_data_dir=folder,
            playbook=str(playbook),
            inventory=str(inventory.resolve()),
            limit=",".join(limit) or None,
            tags=",".join(tags) or None,
            cmdline=" ".join(words) or None,
            envvars=_environment(playbook, binary),
            settings={"suppress_env_files": True},
            event_handler=keep,
            quiet=True,
        )
    return str(runner.status)


def _environment(playbook: Path, binary: Path) -> dict[str, str]:
    config = playbook.parent / "ansible.cfg"
    return {
        **({"ANSIBLE_CONFIG": str(config)} if config.is_file() else {}),
        # The ansible-playbook of this same Python, whatever else the user has on PATH.
        "PATH": f"{binary.parent}:{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_NOCOLOR": "1",
    }
