"""Provisioning converges: after a kill, a second time, and as the playbooks alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]


def test_a_killed_provisioning_is_named_and_the_next_one_converges(cluster):
    done = cluster.provisionings["whole"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was cut off" in done.stderr
    assert json.loads(done.stdout)["status"] == "done"


def test_what_the_killed_run_left_has_not_damaged_the_environment(cluster):
    # pip's own list of torch's files, with their sizes, against the disk.
    read = "import importlib.metadata as m; f = m.files('torch')"
    read += "; print(len(f), [str(p) for p in f if p.size is not None and p.locate().stat().st_size != p.size])"
    for node in ("node1", "node2"):
        count, wrong = cluster.on_node(node, f'/opt/kanctl/venv/bin/python -c "{read}"').split(maxsplit=1)
        assert int(count) > 1000
        assert wrong.strip() == "[]"


def test_the_next_provisioning_changes_nothing_on_any_node(cluster):
    nodes = json.loads(cluster.provisionings["again"].stdout)["nodes"]
    assert [(node["changed"], node["failed"], node["unreachable"]) for node in nodes] == [(0, 0, 0), (0, 0, 0)]


def test_the_playbooks_alone_find_nothing_to_change_either(cluster, project_root: Path):
    playbooks = project_root / "playbooks"
    command = [Path(sys.executable).parent / "ansible-playbook", "-i", cluster.inventory, playbooks / "site.yml"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(playbooks / "ansible.cfg")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    recap = [line for line in done.stdout.splitlines() if "unreachable=0" in line]
    assert len(recap) == 2
    assert all("changed=0" in line and "failed=0" in line for line in recap)


def test_the_exporter_answers_on_every_node(cluster):
    read = "/opt/kanctl/venv/bin/python -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:9877/metrics').read().decode())\""
    for node in ("node1", "node2"):
        assert "kanctl_node_uptime_seconds" in cluster.on_node(node, read)


def test_an_exporter_that_a_killed_run_did_not_restart_is_restarted(cluster):
    # What a run leaves that is killed after it wrote the unit: the old one runs, the new one is on the disk.
    unit = "/etc/systemd/system/kanctl-exporter.service"
    restart = "systemctl daemon-reload && systemctl restart kanctl-exporter"
    old = f"cp {unit} /root/new && sed -i 's/KANCTL_EXPORTER=.*/KANCTL_EXPORTER=old/' {unit} && {restart}"
    cluster.on_node("node1", f"{old} && cp /root/new {unit}")
    report = cluster.answer("provision", "nodes", "--yes", "--limit", "node1", "--tags", "exporter")
    assert [node["changed"] for node in report["nodes"]] == [1]
    running = cluster.on_node("node1", "cat /proc/$(systemctl show -P MainPID kanctl-exporter)/environ")
    assert "KANCTL_EXPORTER=" in running
    assert "KANCTL_EXPORTER=old" not in running


def test_provisioned_nodes_are_healthy(cluster):
    done = cluster.kanctl("health", "check")
    # The disk is this machine's own, as full as it happens to be.
    failed = [line for line in done.stdout.splitlines() if "fail" in line and "disk-free" not in line]
    assert failed == []


def test_an_unreachable_node_is_one_line_and_exit_code_4(cluster, tmp_path: Path):
    inventory = tmp_path / "hosts.yml"
    text = cluster.inventory.read_text()
    address = next(line.split()[-1] for line in text.splitlines() if "ansible_host" in line and line.endswith("12"))
    inventory.write_text(text.replace(address, address.replace(".12", ".99")))
    done = cluster.kanctl("provision", "nodes", "--limit", "node2", "--yes", "--inventory", str(inventory))
    assert done.returncode == 4
    assert "node2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_host_key_is_named_and_never_accepted(cluster, tmp_path: Path):
    known = cluster.inventory.parent.parent / "ssh" / "known_hosts"
    lines = known.read_text().splitlines()
    swapped = [f"{own.split()[0]} {' '.join(other.split()[1:])}" for own, other in zip(lines, lines[::-1], strict=True)]
    changed = tmp_path / "known_hosts"
    changed.write_text("\n".join(swapped) + "\n")
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(cluster.inventory.read_text().replace(str(known), str(changed)))
    # Provisioning is tests/cli/test_provision_lab.py's; this is the other door, which launches and telemetry use.
    done = cluster.kanctl("train", "launch", "tiny", "--inventory", str(inventory))
    assert done.returncode == 4, (done.stdout, done.stderr)
    assert "host key" in done.stderr
    assert "ssh-keygen" in done.stderr
    assert changed.read_text() == "\n".join(swapped) + "\n"
