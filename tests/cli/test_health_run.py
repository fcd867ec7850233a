"""`kanctl health check` as users run it, as far as no node is needed, and what it takes from the inventory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kanctl.cli.declared_kernel import declared_arguments
from kanctl.errors import BadInputError
from kanctl.inventory import Node

NOBODY_HOME = """
all:
  vars: {{kanctl_cluster_name: gone, kanctl_known_hosts_file: {known_hosts}}}
  children:
    nodes:
      hosts:
        node1: {{ansible_host: 127.0.0.1, ansible_port: 1}}
"""


def kanctl(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KANCTL_HOME": str(home)}
    environment.pop("KANCTL_INVENTORY", None)
    command = [sys.executable, "-m", "kanctl.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=home, env=environment)


@pytest.fixture
def inventory(tmp_path):
    (tmp_path / "known_hosts").touch()
    path = tmp_path / "hosts.yml"
    path.write_text(NOBODY_HOME.format(known_hosts=tmp_path / "known_hosts"))
    return path


def test_local_check_needs_no_inventory_and_leaves_nothing_behind(tmp_path):
    done = kanctl("health", "check", "--local", "--json", "--only", "disk-free,shared-writable,D6", home=tmp_path)

    assert done.returncode in (0, 3), done.stderr
    (node,) = json.loads(done.stdout)["nodes"]
    statuses = {finding["check"]: finding["status"] for finding in node["findings"]}
    assert list(statuses) == ["clock-offset", "clock-sync", "disk-free", "shared-writable"]
    assert statuses["shared-writable"] == "pass"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_check_is_bad_usage_before_any_node_is_touched(inventory, tmp_path):
    done = kanctl("health", "check", "-i", str(inventory), "--only", "disk-fre", home=tmp_path)

    assert done.returncode == 2
    assert "no check is called disk-fre" in done.stderr
    assert done.stdout == ""


def test_an_unreachable_node_is_reported_with_exit_code_4(inventory, tmp_path):
    done = kanctl("health", "check", "-i", str(inventory), home=tmp_path)

    assert done.returncode == 4
    assert "no answer  node1: node1 (root@127.0.0.1:1) cannot be reached" in done.stdout
    assert "not checked: node1" in done.stderr


def node(**variables: object) -> Node:
    return Node(name="n", address="10.0.0.1", variables=variables)


def test_without_tuning_variables_no_kernel_arguments_are_declared():
    assert declared_arguments(node(kanctl_shared_dir="/srv"), "6.12.90") is None


def test_declared_arguments_are_those_of_the_role():
    extra = [{"argument": "nosmt", "reason": "test"}]
    found = declared_arguments(
        node(node_tuning_profile="throughput", node_tuning_extra_arguments=extra), "6.12.90+deb13-amd64"
    )

    assert found is not None
    assert "preempt=none" in found
    assert "preempt=lazy" not in found
    assert found[-1] == "nosmt"


def test_a_profile_that_does_not_exist_is_bad_input():
    with pytest.raises(BadInputError, match="n: node_tuning_profile is fast"):
        declared_arguments(node(node_tuning_profile="fast"), "6.12.90")
