"""One small virtual cluster for all tests that need a real one; skips with the reason where it cannot be made."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from kanctl.lab import cgroups, containers, host, mounts, network, processes, tools
from kanctl.lab.errors import LabToolsMissing
from kanctl.lab.model import STATE_ROOT, LabSpec, LabStatus
from kanctl.lab.state import LabPaths
from kanctl.lab.status import read_status, ssh_words


@dataclass(frozen=True)
class Lab:
    """A lab under test."""

    name: str

    @property
    def paths(self) -> LabPaths:
        return LabPaths(name=self.name, state_root=STATE_ROOT)

    def up(self, **wanted: object) -> LabStatus:
        return containers.up(LabSpec(name=self.name, **wanted), print)

    def down(self) -> None:
        containers.down(self.name, print)

    def status(self) -> LabStatus:
        return read_status(self.name)

    def ssh(self, node: str, command: str) -> str:
        done = subprocess.run(ssh_words(self.name, node, [command]), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"`{command}` on {node}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def kanctl(self, *words: str, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
        """The real command, in a process of its own."""
        command = [sys.executable, "-m", "kanctl.cli", "lab", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)

    def traces(self) -> dict[str, list[str]]:
        """Everything on the host that belongs to this lab, by kind."""
        paths = self.paths
        nodes = [paths.node(index) for index in range(1, 5)]
        kinds = {
            "mounts": [str(path) for path in mounts.list_below(paths.folder)],
            "namespaces": network.netns_names(paths),
            "interfaces": [name for name in os.listdir("/sys/class/net") if f"{name}-".startswith(f"{paths.bridge}-")],
            "tables": [line for line in tools.run(["nft", "list", "tables"]).splitlines() if paths.nft_table in line],
            "cgroups": [str(base) for base in cgroups.hierarchies() if (base / paths.cgroup).exists()],
            "supervisors": [str(pid) for pid in processes.find_supervisors(paths)],
            "processes": [str(pid) for node in nodes for pid in processes.find_node(node)],
            "files": [str(paths.folder)] if paths.folder.exists() else [],
        }
        return {kind: found for kind, found in kinds.items() if found}


@pytest.fixture(scope="session")
def lab_host() -> None:
    """This machine can hold a lab; skips otherwise."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    try:
        tools.require_all()
    except LabToolsMissing as error:
        pytest.skip(f"{error}: {error.next_step}")


@pytest.fixture
def make_lab(lab_host: None) -> Iterator[Callable[[str], Lab]]:
    """Makes labs of their own for one test, taken down after it whatever happened; the letter keeps them apart."""
    made: list[Lab] = []

    def make(letter: str) -> Lab:
        made.append(Lab(name=f"{letter}{os.getpid() % 1_000_000}"))
        return made[-1]

    yield make
    for lab in made:
        lab.down()
        assert lab.traces() == {}


@pytest.fixture(scope="session")
def lab(lab_host: None) -> Iterator[Lab]:
    """A running lab of two nodes, the same for all tests; its name holds our process id, so test runs do not meet."""
    shared = Lab(name=f"t{os.getpid() % 1_000_000}")
    shared.up(node_count=2)
    yield shared
    shared.down()
    assert shared.traces() == {}
    # Nothing else on this machine may still need forwarding, or it is given back as found.
    assert network.lab_bridges() or not host.FOUND.exists()
