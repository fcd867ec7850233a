"""The module that collects a node's kernel facts, on small trees that look like a node's."""

import gzip

import pytest

from kanctl.cli.playbook_code import load_playbook_code


@pytest.fixture(scope="module")
def facts():
    """The module, loaded as kanctl loads it for this machine."""
    return load_playbook_code("library/kanctl_kernel_facts.py")


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)


@pytest.fixture
def node(tmp_path):
    """A node with one NVMe disk as root, one NIC without a driver, and NVIDIA's open driver."""
    write(
        tmp_path,
        {
            "proc/sys/kernel/osrelease": "6.12.117-test\n",
            "proc/sys/kernel/version": "#1 SMP\n",
            "proc/cmdline": "root=UUID=1 quiet\n",
            "proc/modules": "nvme 1 0 - Live 0x0\nnvidia 2 0 - Live 0x0\n",
            "proc/config.gz": gzip.compress(b'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\n'),
            "proc/self/mountinfo": "22 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n",
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05\n",
            "proc/kallsyms": "0 T something\n",
            "sys/devices/pci0/disk/modalias": "pci:v0000144D\n",
            "sys/devices/pci0/disk/nvme0/block/part/dev": "259:1",
            "sys/devices/pci0/nic/modalias": "pci:v000015B3\n",
            "sys/module/nvme_core/parameters/multipath": "N\n",
            "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
            "etc/modprobe.d/x.conf": "options nvme_core multipath=N\n",
            "lib/modules/6.12.117-test/modules.builtin": "kernel/fs/ext4/ext4.ko\n",
        },
    )
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/259:1").symlink_to("../../devices/pci0/disk/nvme0/block/part")
    (tmp_path / "sys/bus/pci/drivers/nvme").mkdir(parents=True)
    (tmp_path / "sys/module/nvme").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/drivers/nvme/module").symlink_to("../../../../module/nvme")
    (tmp_path / "sys/devices/pci0/disk/driver").symlink_to("../../../bus/pci/drivers/nvme")
    return tmp_path


def test_a_nodes_facts_are_whole(facts, node):
    found = facts.collect(node)
    assert found["release"] == "6.12.117-test"
    assert found["config"] == {"CONFIG_A": "y", "CONFIG_C": '"x y"'}
    assert found["distribution"] == "debian 12"
    assert found["devices"] == [
        {"path": "/sys/devices/pci0/disk", "modalias": "pci:v0000144D", "driver": "nvme", "module": "nvme"},
        {"path": "/sys/devices/pci0/nic", "modalias": "pci:v000015B3", "driver": None, "module": None},
    ]
    assert found["loaded"] == ["nvme", "nvidia"]
    assert found["builtin"] == ["ext4"]
    assert found["root_device_modules"] == ["nvme"]
    assert found["parameters"] == {"nvme_core.multipath": "N"}
    assert found["nvidia"] == {"version": "580.95.05", "open": True}
    assert found["ib_core_peermem"] is False
    assert found["modprobe"] == {"/etc/modprobe.d/x.conf": "options nvme_core multipath=N\n"}


def test_what_cannot_be_read_is_null_and_not_a_guess(facts, tmp_path):
    found = facts.collect(tmp_path)
    assert found["config"] is None
    assert found["nvidia"] is None
    assert found["ib_core_peermem"] is None
    assert found["devices"] == found["loaded"] == []


def test_a_configuration_in_boot_serves_where_proc_has_none(facts, node):
    (node / "proc/config.gz").unlink()
    write(node, {"boot/config-6.12.117-test": "CONFIG_Z=m\n"})
    assert facts.collect(node)["config"] == {"CONFIG_Z": "m"}


def test_the_proprietary_driver_is_not_called_open(facts, node):
    write(node, {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1.2  Release\n"})
    assert facts.collect(node)["nvidia"] == {"version": "535.1.2", "open": False}


def test_peer_memory_symbols_are_seen(facts, node):
    write(node, {"proc/kallsyms": "0 T ib_register_peer_memory_client\t[ib_core]\n"})
    assert facts.collect(node)["ib_core_peermem"] is True
