"""The module kanctl_hardware on a small machine's sysfs and procfs, and the recorded machines against its shape."""

import gzip
from pathlib import Path

import pytest
import yaml

from kanctl.cli.playbook_code import load_playbook_code

ROOT = Path(__file__).parents[2]
RECORDED = sorted((ROOT / "playbooks/recorded").glob("*.yml"))

# Made after `lspci -Dnn`, `ls -l /sys/bus/pci/devices` of an HGX machine: path, vendor, device, class, node, driver.
DEVICES = """
pci0000:15/0000:15:01.0                                        0x8086 0x352a 0x060400 0 pcieport
pci0000:15/0000:15:01.0/0000:16:00.0                           0x1000 0xc030 0x060400 0 pcieport
pci0000:15/0000:15:01.0/0000:16:00.0/0000:17:00.0              0x15b3 0x1021 0x020700 0 mlx5_core
pci0000:15/0000:15:01.0/0000:16:00.0/0000:1b:00.0              0x10de 0x2335 0x030200 0 nvidia
pci0000:00/0000:00:1c.0/0000:07:00.0                           0x10de 0x22a3 0x068000 1 nvidia-nvswitch
pci0000:00/0000:00:1d.0/0000:08:00.0                           0x10de 0x1db6 0x030200 1 vfio-pci
pci0000:00/0000:00:1e.0                                        0x8086 0x1528 0x020000 -1 ixgbe
"""


hardware = load_playbook_code("library/kanctl_hardware.py")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The machine of DEVICES with a PREEMPT_DYNAMIC kernel, lockdown and Secure Boot on."""
    bus = tmp_path / "sys/bus/pci"
    (bus / "devices").mkdir(parents=True)
    for row in DEVICES.strip().splitlines():
        place, vendor, device, device_class, numa_node, driver = row.split()
        folder = tmp_path / "sys/devices" / place
        for name, value in (("vendor", vendor), ("device", device), ("class", device_class), ("numa_node", numa_node)):
            write(folder / name, value)
        (bus / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (folder / "driver").symlink_to(bus / "drivers" / driver)
        (bus / "devices" / folder.name).symlink_to(folder)
    nic = bus / "devices/0000:17:00.0"
    (nic / "net/ibp23s0").mkdir(parents=True)
    (nic / "infiniband/mlx5_0").mkdir(parents=True)
    write(nic / "infiniband/mlx5_0/ports/1/link_layer", "InfiniBand")
    (tmp_path / "sys/class/infiniband").mkdir(parents=True)
    (nic / "infiniband/mlx5_0/device").symlink_to(nic.resolve())
    (tmp_path / "sys/class/infiniband/mlx5_0").symlink_to(nic / "infiniband/mlx5_0")
    write(tmp_path / "sys/devices/system/node/node0/cpulist", "0-55,112-167")
    write(tmp_path / "sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       1048576 kB")
    write(tmp_path / "proc/sys/kernel/osrelease", "6.12.117-kanctl1")
    write(tmp_path / "proc/version", "Linux version 6.12.117-kanctl1 #1 SMP PREEMPT_DYNAMIC")
    write(tmp_path / "proc/cmdline", "ro iommu=pt")
    write(tmp_path / "proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvidia 1 0 - Live 0x0\next4 1 0 - Live 0x0")
    write(tmp_path / "sys/kernel/debug/sched/preempt", "none voluntary (full) lazy")
    write(tmp_path / "sys/kernel/security/lockdown", "none [integrity] confidentiality")
    write(tmp_path / "boot/config-6.12.117-kanctl1", "CONFIG_PCI_P2PDMA=y\n# CONFIG_NO_HZ_FULL is not set")
    variable = tmp_path / "sys/firmware/efi/efivars" / hardware.SECURE_BOOT_VARIABLE
    variable.parent.mkdir(parents=True)
    variable.write_bytes(b"\x06\x00\x00\x00\x01")
    return tmp_path


def test_gpus_are_found_with_their_bridges_and_what_modules_they_take(root):
    gpus = hardware.collect(root)["gpus"]
    assert [gpu["model"] for gpu in gpus] == ["NVIDIA GPU 10de:1db6", "NVIDIA H200"]
    assert gpus[1]["bridges"] == ["0000:15:01.0", "0000:16:00.0"]
    assert gpus[1]["driver"] == "nvidia"
    assert [gpu["supports_open_modules"] for gpu in gpus] == [False, True]


def test_nvswitches_are_not_counted_as_gpus(root):
    assert hardware.collect(root)["nvswitches"] == [{"address": "0000:07:00.0", "vendor_device": "10de:22a3"}]


def test_nics_have_their_rdma_device_interfaces_and_node(root):
    ethernet, infiniband = hardware.collect(root)["nics"]
    assert infiniband["rdma_device"] == "mlx5_0"
    assert infiniband["link_layer"] == "infiniband"
    assert infiniband["interfaces"] == ["ibp23s0"]
    assert infiniband["has_rdma"]
    assert not ethernet["has_rdma"]
    assert ethernet["numa_node"] == -1


def test_memory_vfio_and_secure_boot_are_read(root):
    facts = hardware.collect(root)
    assert facts["numa_nodes"] == [{"id": 0, "cpus": "0-55,112-167", "memory_bytes": 2**30}]
    assert facts["vfio_devices"] == ["0000:08:00.0"]
    assert facts["secure_boot"] == {"state": "enabled", "lockdown": "integrity"}


def test_the_kernel_tells_its_preemption_and_configuration(root):
    kernel = hardware.collect(root)["kernel"]
    assert kernel["preempt"] == "full"
    assert not kernel["is_realtime"]
    assert kernel["config"]["CONFIG_PCI_P2PDMA"] == "y"
    assert kernel["config"]["CONFIG_NO_HZ_FULL"] == "n"
    assert kernel["nvidia_modules"] == ["nvidia", "nvidia_uvm"]


@pytest.mark.parametrize(
    ("file", "text"),
    [("proc/version", "Linux version 6.12 #1 SMP PREEMPT_RT"), ("sys/kernel/realtime", "1")],
)
def test_preempt_rt_is_recognised(root, file, text):
    write(root / file, text)
    assert hardware.collect(root)["kernel"]["is_realtime"]


def test_a_kernel_configuration_in_proc_is_read_and_a_hidden_one_is_unknown(root):
    (root / "boot/config-6.12.117-kanctl1").unlink()
    assert set(hardware.collect(root)["kernel"]["config"].values()) == {"unknown"}
    (root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_PCI_P2PDMA=y\n"))
    assert hardware.collect(root)["kernel"]["config"]["CONFIG_PCI_P2PDMA"] == "y"


def test_peer_memory_symbols_are_found_where_the_vendors_ib_core_is_loaded(root):
    assert not hardware.collect(root)["kernel"]["has_peer_memory_symbols"]
    write(root / "proc/kallsyms", "0000000000000000 T ib_register_peer_memory_client\t[ib_core]")
    assert hardware.collect(root)["kernel"]["has_peer_memory_symbols"]


def test_a_machine_that_shows_nothing_gives_empty_facts(tmp_path):
    facts = hardware.collect(tmp_path)
    assert facts["gpus"] == []
    assert facts["nics"] == []
    assert facts["secure_boot"] == {"state": "disabled", "lockdown": "none"}


def test_the_module_never_claims_a_change_and_leaves_this_machine_readable():
    facts = hardware.collect(Path("/"))
    assert facts["kernel"]["release"]
    assert facts["source"] == "sysfs"


def test_at_least_two_machines_are_recorded():
    assert {path.stem for path in RECORDED} >= {"h200-x8", "l40s-x2"}


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_recorded_machine_has_the_shape_of_a_real_one_and_says_where_it_is_from(root, path):
    recorded = yaml.safe_load(path.read_text())["kanctl_hardware"]
    real = hardware.collect(root)
    assert recorded.pop("recorded_from")
    assert recorded.pop("source") == "recorded"
    assert "not recorded on a machine" in path.read_text() or "Recorded on" in path.read_text()
    assert {key: type(value) for key, value in recorded.items()} == {
        key: type(value) for key, value in real.items() if key != "source"
    }
    assert recorded["kernel"].keys() == real["kernel"].keys()
    assert recorded["kernel"]["config"].keys() == real["kernel"]["config"].keys()
    for kind in ("gpus", "nics", "nvswitches"):
        assert all(entry.keys() == real[kind][0].keys() for entry in recorded[kind])
