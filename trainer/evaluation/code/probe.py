"""Proof, before any program of a model runs, that the sandbox of this machine holds."""

import json
import socket
from dataclasses import asdict
from pathlib import Path

from kanctl.errors import MissingToolError

from .sandbox import Sandbox

PROGRAM = Path(__file__).with_name("probe_program.py")


def require_tight(sandbox: Sandbox) -> None:
    """Run a program that tries the ways out. Raises MissingToolError, naming all that are open."""
    leaks = find_leaks(sandbox)
    if leaks:
        raise MissingToolError(
            "the sandbox of this machine does not hold, so nothing ran in it: " + "; ".join(leaks),
            "run on another machine; kanctl/trainer/evaluation/code/probe.py tells what is tried",
        )


def find_leaks(sandbox: Sandbox) -> list[str]:
    """What a program can do in the sandbox that it must not; none is the right answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = {**asdict(sandbox.limits), "port": server.getsockname()[1]}
        outcome = sandbox.run(PROGRAM.read_bytes() + f"\ntry_all({json.dumps(asked)})\n".encode())
    leaks = outcome.output.decode("utf-8", "replace").splitlines()
    if outcome.verdict != "passed":
        leaks.append(f"the probe itself did not come to its end: {outcome.verdict}, {outcome.detail}")
    return leaks
