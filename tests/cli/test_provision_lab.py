"""Provisioning over real SSH, on a virtual node: what the door to Ansible must not lose."""

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

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
NAME = f"p{os.getpid() % 1_000_000}"
FOLDER = LabPaths(name=NAME, state_root=STATE_ROOT).folder
Kanctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kanctl(tmp_path_factory) -> Iterator[Kanctl]:
    """The real command on a lab of this file's own; skips where none can be made."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    try:
        tools.require_all()
    except LabToolsMissing as error:
        pytest.skip(f"{error}: {error.next_step}")
    environment = {**os.environ, "KANCTL_HOME": str(tmp_path_factory.mktemp("home"))}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        inventory = str(FOLDER / "inventory" / "hosts.yml")
        command = [sys.executable, "-m", "kanctl.cli", "provision", "nodes", "--inventory", inventory, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    containers.up(LabSpec(name=NAME, node_count=1), print)
    yield run
    containers.down(NAME, print)


def test_a_changed_host_key_is_refused_with_the_way_out(kanctl):
    known_hosts = FOLDER / "ssh" / "known_hosts"
    right = known_hosts.read_text()
    words = right.splitlines()[0].split()
    # Another valid key of the same kind: the last byte of it differs.
    known_hosts.write_text(" ".join([*words[:2], words[2][:-4] + "AAAA"]) + "\n")
    done = kanctl("--yes", "--tags", "preflight")
    known_hosts.write_text(right)

    assert done.returncode == 4
    assert "node1 shows another host key than the known one" in done.stderr
    assert f'ssh-keygen -f "{known_hosts}" -R' in done.stderr
    assert "@@@" not in done.stderr


def test_check_goes_through_on_a_bare_node_and_changes_nothing(kanctl):
    done = kanctl("--check", "--tags", "base", "--json")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["nodes"][0]["changed"] > 0
    again = kanctl("--check", "--tags", "base", "--json")
    assert json.loads(again.stdout)["nodes"][0]["changed"] == report["nodes"][0]["changed"]
