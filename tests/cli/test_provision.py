"""The command `kanctl provision nodes`: mistakes are told before a node is touched, and how a run ends is its code."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Kanctl = Callable[..., subprocess.CompletedProcess[str]]
INVENTORY = """all:
  children:
    nodes:
      hosts:
        node1: {ansible_host: 127.0.0.1, ansible_port: 1}
        node2: {ansible_host: 127.0.0.2, ansible_port: 1}
"""


@pytest.fixture
def kanctl(tmp_path) -> Kanctl:
    """The real command, with an inventory of two nodes at whose ports nobody listens."""
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    environment = {**os.environ, "KANCTL_HOME": str(tmp_path / "home")}
    environment.pop("KANCTL_INVENTORY", None)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kanctl.cli", "provision", "nodes", *words],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def is_untouched(tmp_path) -> bool:
    return not (tmp_path / "home").exists()


def test_a_broken_inventory_is_told_before_anything(kanctl, tmp_path):
    (tmp_path / "hosts.yml").write_text(INVENTORY.replace("127.0.0.2", "127.0.0.1").replace("node2", "node_2"))
    done = kanctl("--yes")

    assert done.returncode == 2
    assert "node_2" in done.stderr
    assert "127.0.0.1 port 1 of node1" in done.stderr
    assert is_untouched(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--limit", "node3"], "--limit names node3"),
        (["--tags", "trianer"], "did you mean trainer?"),
        (["--inventory", "nosuch.yml"], "found none at nosuch.yml"),
    ],
)
def test_wrong_words_are_told_before_anything(kanctl, tmp_path, words, told):
    done = kanctl("--yes", *words)

    assert done.returncode == 2
    assert told in done.stderr
    assert is_untouched(tmp_path)


def test_a_script_without_yes_changes_nothing(kanctl, tmp_path):
    done = kanctl()

    assert done.returncode == 2
    assert "2 nodes: node1, node2" in done.stderr
    assert "steps: preflight, base," in done.stderr
    assert "not confirmed" in done.stderr
    assert is_untouched(tmp_path)


def test_unreachable_nodes_are_one_line_each_and_one_json_document(kanctl, tmp_path):
    done = kanctl("--yes", "--json", "--inventory", "hosts.yml", "--tags", "base")

    assert done.returncode == 4
    report = json.loads(done.stdout)
    assert report["status"] == "failed"
    assert [node["unreachable"] for node in report["nodes"]] == [1, 1]
    assert f"journal: {report['journal']}" in done.stderr
    assert "  node1 refuses connections: is sshd running, and is the port right?\n" in done.stderr
    assert "next: kanctl provision nodes --inventory hosts.yml --tags base --limit node1,node2\n" in done.stderr
