"""site.yml on virtual nodes, of which the second stands in for a machine with eight H200: shown, done, done again.

tests/cluster/ has the rest, on nodes without GPUs: killed half way, trainer and exporter, the playbooks alone.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kanctl.lab import containers, host
from kanctl.lab.errors import LabError, LabToolsMissing
from kanctl.lab.model import STATE_ROOT, LabSpec
from kanctl.lab.state import LabPaths
from kanctl.lab.status import ssh_words

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]
NAME = f"s{os.getpid() % 1_000_000}"
GPU_STEPS = {"nvidia_driver", "nvidia_tuning", "gpudirect"}
# What differs on such a node; the trainer would take as long again and is the same as elsewhere.
ONLY = ("--limit", "node2", "--tags", ",".join(["base", "node_tuning", *sorted(GPU_STEPS)]))
# A login that is not root, with sudo, as clouds give it.
MAKE_LOGIN = """id ops || useradd --create-home --shell /bin/bash ops
install -d -o ops -m 700 /home/ops/.ssh
install -o ops -m 600 /root/.ssh/authorized_keys /home/ops/.ssh/authorized_keys
echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops"""


@dataclass(frozen=True)
class Site:
    """The lab under test, and the real command on it."""

    home: Path

    @property
    def inventory(self) -> Path:
        return LabPaths(name=NAME, state_root=STATE_ROOT).inventory

    def provision(self, *words: str, inventory: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kanctl.cli", "provision", "nodes", *words]
        command += ["--inventory", str(inventory or self.inventory)]
        environment = {**os.environ, "KANCTL_HOME": str(self.home)}
        return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)

    def on_node(self, node: str, command: str) -> str:
        return subprocess.run(ssh_words(NAME, node, [command]), capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two bare nodes; skips with the reason where they cannot be."""
    try:
        host.require_ability()
    except (LabError, LabToolsMissing) as error:
        pytest.skip(str(error))
    containers.up(LabSpec(name=NAME, node_count=2, hardware=(("node2", "h200-x8"),)), print)
    try:
        yield Site(home=tmp_path_factory.mktemp("home"))
    finally:
        containers.down(NAME, print)


@pytest.fixture(scope="module")
def shown(site: Site) -> subprocess.CompletedProcess[str]:
    """--check --diff of everything on the bare nodes."""
    return site.provision("--check", "--diff", "--json")


@pytest.fixture(scope="module")
def done(site: Site, shown: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The first real run, after it was looked at."""
    left = site.on_node("node2", "ls -d /opt/kanctl /etc/kanctl /etc/modprobe.d/kanctl-*")
    assert left == "", "--check changed the node"
    return site.provision("--yes", "--json", *ONLY)


def steps_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, dict]]:
    """Node -> step -> what the report says of it."""
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = json.loads(done.stdout)["nodes"]
    return {node["node"]: {step["step"]: step for step in node["steps"]} for node in nodes}


def test_check_shows_what_the_gpu_roles_would_do_on_a_bare_node(shown):
    steps = steps_of(shown)

    assert {step for step in GPU_STEPS if steps["node2"][step]["changed"] > 0} == GPU_STEPS
    assert {steps["node1"][step]["outcome"] for step in GPU_STEPS & steps["node1"].keys()} <= {"skipped"}
    assert "+options nvidia" in shown.stderr
    assert "+ExecStart=/opt/kanctl/venv/bin/python -m kanctl.monitoring.serve" in shown.stderr


def test_the_real_run_leaves_the_files_of_the_gpu_roles(site, done):
    steps = steps_of(done)["node2"]

    assert {step for step in GPU_STEPS if steps[step]["changed"] > 0} == GPU_STEPS
    assert "options nvidia" in site.on_node("node2", "cat /etc/modprobe.d/kanctl-nvidia.conf")


def test_a_second_run_by_a_login_with_sudo_changes_nothing(site, done, tmp_path):
    site.on_node("node2", MAKE_LOGIN)
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(site.inventory.read_text().replace("ansible_user: root", "ansible_user: ops"))

    second = site.provision("--yes", "--json", *ONLY, inventory=inventory)
    assert second.returncode == 0, second.stderr
    assert [node["changed"] for node in json.loads(second.stdout)["nodes"]] == [0]
