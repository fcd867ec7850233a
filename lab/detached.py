"""Starts a program that outlives the command and the login session that asked for it."""

import os
from pathlib import Path

from . import host, tools


def start(unit: str, words: list[str], log: Path) -> None:
    """Run `words` in the background; it adds what it says to `log`. Where systemd is PID 1 it is the unit `unit`."""
    if host.is_booted_with_systemd():
        # A unit whose program was killed may still be ending under this name; 5 says that there is none.
        tools.run(["systemctl", "stop", f"{unit}.service"], ok_codes=(0, 5))
        tools.run(unit_words(unit, words, log))
    else:
        tools.start_detached(words, log)


def unit_words(unit: str, words: list[str], log: Path) -> list[str]:
    """The command that runs `words` as a unit, which may make cgroups below its own."""
    output = f"append:{log}"
    properties = ["Delegate=yes", "KillMode=mixed", f"StandardOutput={output}", f"StandardError={output}"]
    # systemd starts with an empty environment; these two decide which kanctl and which tools are found.
    kept = [f"{key}={os.environ[key]}" for key in ("PATH", "PYTHONPATH") if key in os.environ]
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={unit}",
        *[f"--property={text}" for text in properties],
        *[f"--setenv={text}" for text in kept],
        "--",
        *words,
    ]
