"""The promises of the virtual cluster, kept on a real one. Needs root and the container tools."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kanctl.lab import containers, host, mounts, network, processes, tools
from kanctl.lab.apt_sources import read_release, read_sources
from kanctl.lab.errors import LabError, LabSpecInvalid
from kanctl.lab.model import LabSpec

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


def wait_until(claim: Callable[[], bool], timeout_s: float = 20) -> None:
    """Return once the claim holds; fail the test when it never does."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def states(lab) -> list[str]:
    return [node.state for node in lab.status().nodes]


def kill_nspawn(lab, index: int) -> None:
    """Kill the container's outer process as a crash would, leaving what it started."""
    for pid in processes.find_containers(lab.paths.node(index)):
        os.kill(pid, signal.SIGKILL)


def test_every_node_boots_without_a_failed_unit(lab):
    for node in lab.status().nodes:
        assert lab.ssh(node.name, "systemctl is-system-running --wait") == "running"
        assert lab.ssh(node.name, "hostname") == node.name


def test_second_up_leaves_running_nodes_alone(lab):
    before = lab.status()
    assert lab.up() == before


def test_nodes_share_a_folder_with_each_other_and_the_host(lab):
    lab.ssh("node1", "echo hello > /srv/kanctl/note")
    assert lab.ssh("node2", "cat /srv/kanctl/note") == "hello"
    assert (lab.paths.shared / "note").read_text() == "hello\n"


def test_nodes_reach_each_other_by_name(lab):
    assert "1 received" in lab.ssh("node1", "ping -c 1 -W 5 node2")


def test_nodes_reach_the_package_mirror_when_the_host_does(lab):
    mirror = read_sources(read_release())[0].uri.split("/")[2]
    if subprocess.run(["getent", "hosts", mirror], capture_output=True).returncode != 0:
        pytest.skip(f"this machine cannot look up {mirror}")
    assert mirror in lab.ssh("node1", "apt-get update")


def test_ansible_reaches_every_node_with_host_keys_checked(lab):
    ansible = Path(sys.executable).with_name("ansible")
    words = [str(ansible), "-i", str(lab.status().inventory), "nodes", "-m", "ansible.builtin.ping", "-o"]
    done = subprocess.run(words, capture_output=True, text=True, cwd="/")
    assert done.stdout.count("SUCCESS") == 2, done.stdout + done.stderr


def test_kernel_settings_read_back_on_the_node_and_leave_the_host_alone(lab):
    keys = ("vm.swappiness", "kernel.hung_task_timeout_secs", "net.core.rmem_max", "fs.aio-max-nr")
    files = [Path("/proc/sys") / key.replace(".", "/") for key in keys]
    before = [file.read_text() for file in files]
    for key in keys:
        assert lab.ssh("node1", f"sysctl -qw {key}=12345 && sysctl -n {key}") == "12345"
    assert [file.read_text() for file in files] == before


def test_reboot_comes_back_with_its_disk_and_fresh_kernel_settings(lab):
    supervisor = lab.status().nodes[0].supervisor_pid
    boot_id = lab.ssh("node1", "cat /proc/sys/kernel/random/boot_id")
    lab.ssh("node1", "mkdir -p /etc/default/grub.d")
    lab.ssh("node1", "echo 'GRUB_CMDLINE_LINUX=\"isolcpus=1 nohz_full=1\"' > /etc/default/grub.d/test.cfg")
    lab.ssh("node1", "sysctl -qw vm.swappiness=7")
    subprocess.run(lab_reboot(lab, "node1"), capture_output=True)
    wait_until(lambda: states(lab)[0] == "running" and read_boot_id(lab) not in {"", boot_id})
    assert lab.ssh("node1", "systemctl is-system-running --wait") == "running"
    assert lab.ssh("node1", "cat /proc/cmdline").endswith("isolcpus=1 nohz_full=1")
    assert lab.ssh("node1", "sysctl -n vm.swappiness") == Path("/proc/sys/vm/swappiness").read_text().strip()
    assert lab.status().nodes[0].supervisor_pid == supervisor


def lab_reboot(lab, node: str) -> list[str]:
    return [sys.executable, "-m", "kanctl.cli", "lab", "ssh", "--name", lab.name, node, "reboot"]


def read_boot_id(lab) -> str:
    done = lab.kanctl("ssh", "--name", lab.name, "node1", "cat", "/proc/sys/kernel/random/boot_id")
    return done.stdout.strip()


def test_up_restarts_a_node_that_died_with_its_disk(lab):
    lab.ssh("node2", "echo kept > /root/kept; sync")
    kill_nspawn(lab, 2)
    assert lab.up().is_running
    kill_nspawn(lab, 2)
    wait_until(lambda: states(lab) == ["running", "stopped"])
    assert processes.find_node(lab.paths.node(2)) == set()
    assert lab.up().is_running
    assert lab.ssh("node2", "cat /root/kept") == "kept"


def test_up_gives_a_node_its_supervisor_back(lab):
    os.kill(lab.status().nodes[1].supervisor_pid, signal.SIGKILL)
    wait_until(lambda: states(lab) == ["running", "unsupervised"])
    assert lab.up().is_running


def test_up_repairs_the_network(lab):
    tools.run(["ip", "link", "delete", lab.paths.node(1).host_interface])
    tools.run(["nft", "delete", "table", "ip", lab.paths.nft_table])
    lab.up()
    assert "1 received" in lab.ssh("node1", "ping -c 1 -W 5 node2")
    assert f"table ip {lab.paths.nft_table}" in tools.run(["nft", "list", "tables"])


def test_up_after_a_reboot_of_the_host_keeps_the_nodes_disks(lab):
    lab.ssh("node1", "echo kept > /root/kept; sync")
    containers.stop_everything(lab.paths)
    mounts.unmount_below(lab.paths.folder)
    network.remove(lab.paths)
    assert set(lab.traces()) <= {"files", "cgroups"}
    assert states(lab) == ["stopped", "stopped"]
    assert lab.up().is_running
    assert lab.ssh("node1", "cat /root/kept; systemctl is-system-running --wait") == "kept\nrunning"


def test_power_off_stops_the_node_for_good(lab):
    subprocess.run([*lab_reboot(lab, "node2")[:-1], "poweroff"], capture_output=True)
    wait_until(lambda: states(lab) == ["running", "stopped"])
    assert lab.kanctl("status", "--name", lab.name).returncode == 3
    answer = lab.kanctl("ssh", "--name", lab.name, "node2", "true")
    assert answer.returncode == 4
    assert f"kanctl lab up --name {lab.name}" in answer.stderr
    lab.up()


def test_ssh_ends_with_the_exit_code_of_the_command(lab):
    assert lab.kanctl("ssh", "--name", lab.name, "node1", "sh", "-c", "exit 7").returncode == 7
    assert lab.kanctl("ssh", "--name", lab.name, "node1", "echo", "two  words", "$HOME").stdout == "two  words $HOME\n"
    assert lab.kanctl("ssh", "--name", lab.name, "node9", "true").returncode == 2


def test_status_as_json_names_every_node(lab):
    document = json.loads(lab.kanctl("status", "--name", lab.name, "--json").stdout)
    assert document["running"] is True
    assert [node["state"] for node in document["nodes"]] == ["running", "running"]


def test_fewer_nodes_than_there_are_is_refused(lab):
    with pytest.raises(LabSpecInvalid, match="nodes are added, never taken away"):
        lab.up(node_count=1)
    assert states(lab) == ["running", "running"]


def test_down_leaves_nothing_after_everything_was_killed(make_lab):
    other = make_lab("u")
    status = other.up(node_count=2, hardware=(("node2", "h200"),))
    assert "kanctl_recorded_hardware: h200" in status.inventory.read_text()
    for node in status.nodes:
        os.kill(node.supervisor_pid, signal.SIGKILL)
    kill_nspawn(other, 1)
    # A name without its namespace, as some crashes leave it, and a torn record.
    tools.run(["umount", "--lazy", f"/run/netns/{other.paths.node(2).netns}"])
    other.paths.record.write_text('{"name": ')
    other.down()
    assert other.traces() == {}
    other.down()
    assert other.traces() == {}


def test_labs_side_by_side_have_networks_of_their_own(lab, make_lab):
    other = make_lab("v")
    assert other.up(node_count=1).subnet != lab.status().subnet
    grown = other.up(node_count=2)
    assert grown.is_running
    assert grown.nodes[1].address in other.ssh("node1", "getent hosts node2")
    other.down()
    assert states(lab) == ["running", "running"]
    assert host.IP_FORWARD.read_text() == "1\n"


def test_interrupted_up_says_so_and_the_next_one_works(make_lab):
    other = make_lab("w")
    words = [sys.executable, "-m", "kanctl.cli", "lab", "up", "--name", other.name, "--nodes", "1"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    said = process.stderr.readline()
    while "starting node1" not in said:
        said = process.stderr.readline()
        assert said, "ended before the node was started"
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 130
    assert "stopped half way" in rest
    assert "Traceback" not in rest
    assert other.up().is_running


def test_a_full_disk_is_said_before_anything_is_made(make_lab, lab, tmp_path):
    other = make_lab("x")
    tools.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)])
    try:
        with pytest.raises(LabError, match="wanted 400 MiB free"):
            other.up(state_root=tmp_path)
        with pytest.raises(LabError, match=r"cannot write .*No space left"), host.explained_disk_errors(tmp_path):
            (tmp_path / "big").write_bytes(b"x" * 8 * 2**20)
    finally:
        tools.run(["umount", str(tmp_path)])
    assert other.traces() == {}


def test_the_bridge_alone_says_whether_a_lab_is_left(lab):
    assert lab.paths.bridge in network.lab_bridges()
    assert not any(name.count("-") > 1 for name in network.lab_bridges())


def test_anyone_but_root_gets_one_clear_line(lab_host):
    # Root's rights are given up after the imports, which another user may not be allowed to read.
    code = (
        "import os\n"
        "from kanctl.lab import containers\n"
        "from kanctl.lab.errors import LabError\n"
        "from kanctl.lab.model import LabSpec\n"
        "os.seteuid(65534)\n"
        "try:\n"
        "    containers.up(LabSpec(name='never'), print)\n"
        "except LabError as error:\n"
        "    print(error, error.next_step)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs root" in done.stdout
    assert "sudo" in done.stdout
    assert LabSpec(name="never").state_root.joinpath("never").exists() is False
