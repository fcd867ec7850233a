"""What a lab of QEMU machines is made from, as values: disk, identity, command line, ports, inventory, record."""

import io
import json
import socket
import struct
import tarfile
import threading
from pathlib import Path

import pytest
import yaml

from kanctl.lab import backends, tools
from kanctl.lab.apt_sources import Release, Source
from kanctl.lab.errors import LabError, LabMissing, LabSpecInvalid, LabToolsMissing
from kanctl.lab.machines import disk_image, login, machines, power, qemu
from kanctl.lab.machines.inventory_file import inventory_text, known_hosts_text
from kanctl.lab.machines.seed import seed_tar
from kanctl.lab.machines.state import MachinesRecord, load_record, machine, record_path, require_record, save_record
from kanctl.lab.model import LabSpec
from kanctl.lab.rootfs import RootfsInputs, mmdebstrap_words
from kanctl.lab.state import LabPaths

RECORD = MachinesRecord(
    name="demo", ports={"node1": 22001, "node2": 22005}, hardware={"node2": "h200"}, image="/cache/machine-1.raw"
)
INPUTS = RootfsInputs(
    release=Release(distribution="debian", codename="bookworm"),
    architecture="x86_64",
    sources=(Source(uri="http://m.example/debian", suite="bookworm", components=("main",)),),
    apt_options=(),
    certificates_sha256="0" * 64,
    packages=disk_image.PACKAGES,
)


@pytest.fixture
def paths(tmp_path):
    return LabPaths(name="demo", state_root=tmp_path)


def test_the_partition_is_bootable_and_ends_with_the_disk():
    sector = disk_image.partition_table(64)
    assert (len(sector), sector[510:]) == (512, b"\x55\xaa")
    active, _, kind, _, first, count = struct.unpack("<B3sB3sII", sector[446:462])
    assert (active, kind, first, first + count) == (0x80, 0x83, 2048, 64 * 2**20 // 512)


def test_the_image_is_named_by_its_packages_and_our_files(tmp_path):
    (tmp_path / "file").write_text("one")
    before = disk_image.content_hash(INPUTS, tmp_path)
    assert before == disk_image.content_hash(INPUTS, tmp_path)
    assert len(before) == 12
    (tmp_path / "file").write_text("two")
    assert disk_image.content_hash(INPUTS, tmp_path) != before


def test_grub_of_the_new_tree_is_told_to_leave_the_disks_of_this_machine_alone():
    words = mmdebstrap_words(INPUTS, Path("/cache/building-1"), disk_image.hooks())
    first = next(word for word in words if word.startswith("--essential-hook="))
    assert "grub-pc/install_devices_empty boolean true" in first
    assert words[-3:] == ["bookworm", "/cache/building-1", "-"]


def test_the_identity_is_readable_by_root_alone_and_marked_last():
    seed = seed_tar(
        node_name="node1", guest="kanctl-demo-node1", host_key="KEY", host_key_public="PUB", login_key_public="LOGIN"
    )
    with tarfile.open(fileobj=io.BytesIO(seed)) as archive:
        modes = {entry.name: entry.mode for entry in archive.getmembers()}
        texts = {e.name: archive.extractfile(e).read().decode() for e in archive.getmembers() if e.isfile()}
    assert modes["root/.ssh"] == 0o700
    assert modes["root/.ssh/authorized_keys"] == modes["etc/ssh/ssh_host_ed25519_key"] == 0o600
    assert texts["etc/hostname"] == "node1\n"
    assert texts["root/.ssh/authorized_keys"] == "LOGIN"
    assert list(modes)[-1] == "etc/kanctl-lab"


def test_a_machine_starts_from_its_disk_with_a_watchdog_and_its_port(paths):
    words = qemu.machine_words(machine(paths, "node2"), 22005)
    text = " ".join(words)
    assert "-kernel" not in words
    assert "-no-reboot" not in words
    assert "-loadvm" not in words
    assert f"file={paths.folder}/nodes/node2/disk.qcow2" in text
    assert "hostfwd=tcp:127.0.0.1:22005-:22" in text
    assert "-device i6300esb -action watchdog=reset" in text
    assert qemu.machine_words(machine(paths, "node2"), 22005, "booted")[-2:] == ["-loadvm", "booted"]


def test_new_nodes_get_free_ports_and_old_ones_keep_theirs():
    assert machines.choose_ports({}, 2, {22001, 22003}) == {"node1": 22002, "node2": 22004}
    assert machines.choose_ports({"node1": 22002}, 2, {22001}) == {"node1": 22002, "node2": 22003}
    with pytest.raises(LabError, match="wanted a free port"):
        machines.choose_ports({}, 1, set(machines.PORTS))


def test_the_inventory_gives_each_node_its_port():
    text = inventory_text(RECORD, known_hosts=Path("/k/known_hosts"), private_key=Path("/k/id"))
    hosts = yaml.safe_load(text)["all"]["children"]["nodes"]["hosts"]
    assert hosts == {
        "node1": {"ansible_host": "127.0.0.1", "ansible_port": 22001},
        "node2": {"ansible_host": "127.0.0.1", "ansible_port": 22005, "kanctl_recorded_hardware": "h200"},
    }
    assert known_hosts_text({22001: "ssh-ed25519 AAA me\n"}) == "[127.0.0.1]:22001 ssh-ed25519 AAA\n"


def test_a_record_is_read_back_and_a_torn_one_says_how_to_clear_it(paths):
    with pytest.raises(LabMissing, match="wanted a lab of machines named demo"):
        require_record(paths)
    save_record(paths, RECORD)
    assert load_record(paths) == RECORD
    with pytest.raises(LabSpecInvalid, match=r"wanted a node of lab demo \(node1, node2\), found 'node3'"):
        RECORD.require_node("node3")
    record_path(paths).write_text("{")
    with pytest.raises(LabError) as caught:
        load_record(paths)
    assert "kanctl lab down --name demo" in caught.value.next_step


def test_status_of_machines_that_are_off_needs_no_root(paths):
    save_record(paths, RECORD)
    found = backends.read_status("demo", paths.state_root)
    assert (found.kind, found.is_running) == ("machines", False)
    assert [(node.address, node.state) for node in found.nodes] == [
        ("127.0.0.1:22001", "stopped"),
        ("127.0.0.1:22005", "stopped"),
    ]


def test_a_machine_that_is_off_is_not_waited_for(paths):
    save_record(paths, RECORD)
    log = machine(paths, "node1").serial_log
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\x1b[0;32m  OK  \x1b[0m hello\r\nKernel panic - not syncing\r\n")
    with pytest.raises(LabError, match=r"its QEMU ended after \d+ s\n(.|\n)*  Kernel panic - not syncing") as caught:
        login.wait_for_ssh("demo", "node1", state_root=paths.state_root)
    assert caught.value.next_step == f"see {log}"
    assert power.serial_log("demo", "node1", state_root=paths.state_root).splitlines()[0] == "  OK   hello"


def test_a_lab_keeps_its_kind(paths, monkeypatch):
    monkeypatch.setattr(tools, "MACHINE_PACKAGES", {})
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("kanctl.lab.host.RUN_DIR", paths.state_root / "run")
    paths.folder.mkdir()
    paths.record.write_text("{}")
    with pytest.raises(LabSpecInvalid, match="lab demo has containers, wanted machines"):
        machines.up(LabSpec(name="demo", state_root=paths.state_root), print)


def test_missing_packages_are_named_with_the_command_that_installs_them():
    with pytest.raises(LabToolsMissing) as caught:
        tools.require_all({"no-such-qemu": "qemu-system-x86", "no-such-img": "qemu-utils"})
    assert caught.value.next_step == "apt-get install -y qemu-system-x86 qemu-utils"


def test_the_control_socket_is_asked_past_events_and_tells_errors(paths):
    one = machine(paths, "node1")
    one.qmp_socket.parent.mkdir(parents=True)
    with pytest.raises(LabError, match="QEMU did not answer 'query-status'"):
        qemu.command(one, "query-status")
    answers = [{"return": {}}, {"event": "RESET"}, {"return": {"running": True}}]
    assert serve_qmp(one.qmp_socket, answers, lambda: qemu.command(one, "query-status")) == {"running": True}
    refused = [{"return": {}}, {"error": {"class": "x", "desc": "no such command"}}]
    with pytest.raises(LabError, match="no such command"):
        serve_qmp(one.qmp_socket, refused, lambda: qemu.command(one, "nonsense"))


def serve_qmp(path, answers, ask):
    """Stand in for QEMU for one connection: a greeting, then the answers in order."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve():
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as stream:
                stream.write(json.dumps({"QMP": {}}) + "\n")
                stream.flush()
                for answer in answers:
                    if "event" not in answer:
                        stream.readline()
                    stream.write(json.dumps(answer) + "\n")
                    stream.flush()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return ask()
        finally:
            thread.join(timeout=5)
