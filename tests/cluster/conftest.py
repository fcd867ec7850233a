"""One provisioned virtual cluster for all tests of what happens on a cluster; skips with the reason where it cannot be.

Its first provisioning is killed half way on purpose: every test below then also shows that the second one converged.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from kanctl.errors import NodeUnreachableError
from kanctl.lab import containers, host
from kanctl.lab.errors import LabError, LabToolsMissing
from kanctl.lab.model import STATE_ROOT, LabSpec
from kanctl.lab.state import LabPaths
from kanctl.lab.status import ssh_words

# Letters of the lab's name; the process id keeps two test runs apart.
NAME = f"c{os.getpid() % 1_000_000}"


@dataclass
class Cluster:
    """The cluster under test: the real command in processes of its own, as a user runs it."""

    home: Path
    provisionings: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        return LabPaths(name=NAME, state_root=STATE_ROOT).inventory

    @property
    def shared(self) -> Path:
        """The nodes' /srv/kanctl, as this machine sees it."""
        return LabPaths(name=NAME, state_root=STATE_ROOT).shared

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "KANCTL_INVENTORY": str(self.inventory), "KANCTL_HOME": str(self.home)}

    def kanctl(self, *words: str, timeout_s: float = 240, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kanctl.cli", *words]
        environment = {**self.environment, **extra}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)

    def answer(self, *words: str) -> dict:
        """The JSON of a command that must succeed."""
        done = self.kanctl(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def on_node(self, node: str, command: str) -> str:
        """What a command writes on a node; nothing when the node does not answer."""
        try:
            words = ssh_words(NAME, node, [command])
        except NodeUnreachableError:
            return ""
        return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout

    def wait_for(self, run: str, *states: str, step: int = 0, timeout_s: float = 150) -> dict:
        """The run's status once it is in one of the states and at the step. Fails the test when that never comes."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            # The run folder comes a moment after the command that makes it.
            done = self.kanctl("train", "status", run, "--json")
            status = json.loads(done.stdout) if done.returncode == 0 else {"state": done.stderr, "step": None}
            if status["state"] in states and (status["step"] or 0) >= step:
                return status
            time.sleep(1)
        pytest.fail(f"{run} never was {states} at step {step}: {status}\n{self.kanctl('train', 'logs', run).stdout}")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, provisioned three times: killed half way, whole, and once more; with the default corpus."""
    try:
        host.require_ability()
    except (LabError, LabToolsMissing) as error:
        pytest.skip(str(error))
    made = Cluster(home=tmp_path_factory.mktemp("home"))
    containers.up(LabSpec(name=NAME, node_count=2), print)
    try:
        kill_half_way(made)
        for title in ("whole", "again"):
            made.provisionings[title] = made.kanctl("provision", "nodes", "--yes", "--json")
        prepared = made.kanctl("train", "prepare")
        assert prepared.returncode == 0, prepared.stderr
        yield made
    finally:
        containers.down(NAME, print)


def kill_half_way(cluster: Cluster) -> None:
    """Start provisioning and kill everything of it, with -9, while the nodes install their packages."""
    command = [sys.executable, "-m", "kanctl.cli", "provision", "nodes", "--yes"]
    log = cluster.home / "killed.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL, env=cluster.environment)
    deadline = time.monotonic() + 120
    while "node_tuning done" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    # Into the copying and unpacking of wheels, the longest step.
    time.sleep(6)
    for victim in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        victim.kill()
    process.wait(timeout=30)
