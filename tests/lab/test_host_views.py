"""What is read from the host (mounts, cgroups, name servers) is understood on every kind of it."""

from pathlib import Path

import pytest

from kanctl.errors import MissingToolError
from kanctl.lab import cgroups, image, mounts
from kanctl.lab.errors import LabError
from kanctl.lab.tools import find, require_all, run
from kanctl.programs import ProgramFailed

HYBRID = """\
30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
31 29 0:27 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
32 29 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
"""
PLAIN = "35 25 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_cgroups_of_a_hybrid_host_are_systemds_and_the_unified_one():
    assert cgroups.hierarchies(HYBRID) == [Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified")]


def test_cgroups_of_a_plain_host_are_the_one():
    assert cgroups.hierarchies(PLAIN) == [Path("/sys/fs/cgroup")]


def test_own_cgroup_is_found_in_either_kind(tmp_path):
    membership = "9:name=systemd:/a\n4:memory:/b\n0::/c/d\n"
    assert cgroups.own_cgroup(tmp_path, membership) == tmp_path / "a"
    (tmp_path / "cgroup.controllers").touch()
    assert cgroups.own_cgroup(tmp_path, membership) == tmp_path / "c/d"


def test_mounts_are_listed_innermost_first_and_only_below_the_folder():
    text = "".join(
        f"1 2 0:1 / {point} rw - overlay overlay rw\n"
        for point in ("/lab", "/lab/node/root", "/lab/node/root/srv", "/lab2/root", r"/lab/a\040b")
    )
    assert mounts.list_below(Path("/lab"), text) == [
        Path("/lab/node/root/srv"),
        Path("/lab/node/root"),
        Path("/lab/a b"),
        Path("/lab"),
    ]


def test_name_servers_on_loopback_are_replaced_by_the_ones_behind_them(tmp_path):
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\noptions edns0\n")
    real.write_text("nameserver 192.0.2.1\nsearch example.org\n")
    assert image.read_resolv_conf((stub, real)) == real.read_text()
    assert image.read_resolv_conf((real, stub)) == real.read_text()
    with pytest.raises(LabError, match="only loopback ones"):
        image.read_resolv_conf((stub, tmp_path / "missing"))


def test_hosts_file_gains_new_nodes_and_keeps_what_is_there(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n192.0.2.9 mine\n10.73.0.11 node1\n")
    image.add_hosts(hosts, {"node1": "10.73.0.11", "node2": "10.73.0.12"})
    image.add_hosts(hosts, {"node1": "10.73.0.11", "node2": "10.73.0.12"})
    assert hosts.read_text() == "127.0.0.1 localhost\n192.0.2.9 mine\n10.73.0.11 node1\n10.73.0.12 node2\n"


def test_missing_packages_are_one_line_with_one_command(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="systemd-nspawn") as caught:
        require_all()
    assert caught.value.next_step.startswith("apt-get install -y ")
    assert "systemd-container" in caught.value.next_step
    assert caught.value.exit_code == 5
    with pytest.raises(MissingToolError) as caught:
        find("systemd-nspawn")
    assert caught.value.next_step == "apt-get install -y systemd-container"


def test_a_tool_that_fails_shows_its_command_and_its_last_words():
    with pytest.raises(ProgramFailed, match=r"`ls /no/such/folder` ended with 2:\n.*No such file"):
        run(["ls", "/no/such/folder"])
