"""Health and telemetry on a real cluster of two virtual nodes that nobody has provisioned."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from kanctl.lab import containers, tools
from kanctl.lab.errors import LabToolsMissing
from kanctl.lab.model import STATE_ROOT, LabSpec
from kanctl.lab.state import LabPaths
from kanctl.lab.status import ssh_words

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
NAME = f"h{os.getpid() % 1_000_000}"
INVENTORY = LabPaths(name=NAME, state_root=STATE_ROOT).folder / "inventory" / "hosts.yml"
Kanctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kanctl() -> Iterator[Kanctl]:
    """The real command on a lab of this file's own; skips where none can be made."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    try:
        tools.require_all()
    except LabToolsMissing as error:
        pytest.skip(f"{error}: {error.next_step}")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kanctl.cli", *words, "--inventory", str(INVENTORY)]
        return subprocess.run(command, capture_output=True, text=True, timeout=90)

    containers.up(LabSpec(name=NAME, node_count=2), print)
    yield run
    containers.down(NAME, print)


def on_node(node: str, command: str) -> str:
    done = subprocess.run(ssh_words(NAME, node, [command]), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def statuses(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], str]:
    nodes = json.loads(done.stdout)["nodes"]
    return {(node["node"], finding["check"]): finding["status"] for node in nodes for finding in node["findings"]}


def test_bare_nodes_lack_only_the_environment_that_trains(kanctl):
    done = kanctl("health", "check", "--json")

    bad = {key for key, status in statuses(done).items() if status in ("fail", "warn", "unknown")}
    # The disk is this machine's own, as full as it happens to be.
    bad -= {("node1", "disk-free"), ("node2", "disk-free")}
    assert bad == {("node1", "trainer-venv"), ("node2", "trainer-venv")}
    assert done.returncode == 3
    assert on_node("node1", "ls -A /srv/kanctl | grep health || true") == ""


def test_an_unprovisioned_node_is_a_row_of_the_telemetry(kanctl):
    done = kanctl("telemetry", "view", "--once", "--json")

    assert done.returncode == 4
    assert all("kanctl provision nodes" in node["problem"] for node in json.loads(done.stdout)["nodes"])


def test_faults_are_found_on_the_node_that_has_them(kanctl):
    on_node("node2", "mount -t tmpfs none /srv/kanctl; echo CUDA_PROFILE=1 >> /etc/environment")
    try:
        done = kanctl("health", "check", "--json", "--only", "environment,shared-same")
    finally:
        on_node("node2", "umount /srv/kanctl; sed -i /CUDA_PROFILE/d /etc/environment")

    assert done.returncode == 3
    found = statuses(done)
    assert found["node1", "environment"] == "pass"
    assert found["node2", "environment"] == "fail"
    assert found["node1", "shared-same"] == found["node2", "shared-same"] == "fail"


def test_the_others_are_reported_when_a_node_is_down(kanctl):
    on_node("node2", "systemctl stop ssh.socket ssh")
    done = kanctl("health", "check", "--json")

    assert done.returncode == 4
    assert [node["is_checked"] for node in json.loads(done.stdout)["nodes"]] == [True, False]
    assert statuses(done)["node1", "peers-reachable"] == "fail"
