#!/usr/bin/python
"""Ansible module: what a GPU node is made of, read from sysfs and procfs; it never changes anything.

It runs on the node with nothing but Python's standard library. A recorded machine (playbooks/recorded/) has the
same shape, so that roles cannot tell one from the other except by `source`.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: kanctl_hardware
short_description: Collects GPUs, NVSwitches, NICs, NUMA nodes, kernel and Secure Boot state as one fact
description:
  - Reads sysfs and procfs only and returns the fact C(kanctl_hardware). Nothing is changed.
options:
  root:
    description: Folder that holds C(sys), C(proc) and C(boot). Another value than C(/) is for tests.
    type: path
    default: /
author: [kanctl]
"""

EXAMPLES = r"""
- name: Hardware is known
  kanctl_hardware:
"""

RETURN = r"""
ansible_facts:
  description: The fact C(kanctl_hardware); docs/gpu-nodes.md lists its keys.
  returned: always
  type: dict
"""

NVIDIA = "10de"
MELLANOX = "15b3"
# Names as in pci.ids; a GPU that is not here is shown by its number and works all the same.
GPU_MODELS = {
    "20b0": "NVIDIA A100-SXM4-40GB",
    "20b2": "NVIDIA A100-SXM4-80GB",
    "20b5": "NVIDIA A100 80GB PCIe",
    "2330": "NVIDIA H100 80GB HBM3",
    "2331": "NVIDIA H100 PCIe",
    "2335": "NVIDIA H200",
    "233b": "NVIDIA H200 NVL",
    "26b9": "NVIDIA L40S",
    "27b8": "NVIDIA L4",
    "2901": "NVIDIA B200",
}
# The first PCI device number of Turing: from there on a GPU has the GSP that the open kernel modules need.
# Source: github.com/NVIDIA/open-gpu-kernel-modules README, "Compatible GPUs".
FIRST_TURING = 0x1E00
# What the roles ask the kernel's configuration for, and nothing more.
CONFIG_SYMBOLS = (
    "CONFIG_PCI_P2PDMA",
    "CONFIG_DMABUF_MOVE_NOTIFY",
    "CONFIG_DEVICE_PRIVATE",
    "CONFIG_PREEMPT_DYNAMIC",
    "CONFIG_PREEMPT_RT",
    "CONFIG_NO_HZ_FULL",
)
PCI_ADDRESS = re.compile(r"^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")
SECURE_BOOT_VARIABLE = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def read_text(path: Path) -> str:
    """The file's text without the newline at its end; empty where there is none or it may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def bracketed(text: str) -> str:
    """The chosen word of a sysfs choice list: `none [integrity] confidentiality` gives `integrity`."""
    found = re.search(r"[\[(]([^\])]+)[\])]", text)
    return found.group(1) if found else ""


def pci_devices(sys: Path) -> list[dict[str, Any]]:
    """Every PCI device in address order. Shell: lspci -Dnn."""
    return [pci_device(entry) for entry in sorted((sys / "bus/pci/devices").glob("*"))]


def pci_device(entry: Path) -> dict[str, Any]:
    """One device: numbers as in lspci -n, its driver, and the bridges above it from the root port down."""
    ids = [read_text(entry / name).removeprefix("0x") for name in ("vendor", "device", "class")]
    driver = entry / "driver"
    numa_node = read_text(entry / "numa_node") or "-1"
    return {
        "address": entry.name,
        "vendor": ids[0],
        "device": ids[1],
        "class": ids[2][:4],
        "numa_node": int(numa_node),
        "driver": driver.resolve().name if driver.is_symlink() else "",
        "bridges": [part for part in entry.resolve().parts[:-1] if PCI_ADDRESS.match(part)],
    }


def gpu(device: dict[str, Any]) -> dict[str, Any]:
    """A GPU as the roles see it."""
    return {
        "address": device["address"],
        "vendor_device": f"{device['vendor']}:{device['device']}",
        "model": GPU_MODELS.get(device["device"], f"NVIDIA GPU {device['vendor']}:{device['device']}"),
        "numa_node": device["numa_node"],
        "driver": device["driver"],
        "bridges": device["bridges"],
        "supports_open_modules": int(device["device"], 16) >= FIRST_TURING,
    }


def rdma_names(sys: Path) -> dict[str, tuple[str, str]]:
    """PCI address -> (RDMA device, link layer). Shell: ls -l /sys/class/infiniband."""
    names = {}
    for entry in sorted((sys / "class/infiniband").glob("*")):
        layer = read_text(entry / "ports/1/link_layer").lower()
        names[(entry / "device").resolve().name] = (entry.name, layer)
    return names


def nic(device: dict[str, Any], sys: Path, rdma: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """A network or InfiniBand controller with its interfaces. Shell: ls /sys/bus/pci/devices/ADDRESS/net."""
    name, layer = rdma.get(device["address"], ("", ""))
    folder = sys / "bus/pci/devices" / device["address"]
    return {
        "address": device["address"],
        "vendor_device": f"{device['vendor']}:{device['device']}",
        "driver": device["driver"],
        "numa_node": device["numa_node"],
        "bridges": device["bridges"],
        "interfaces": sorted(entry.name for entry in (folder / "net").glob("*")),
        "rdma_device": name,
        "link_layer": layer,
        # Before its driver is loaded a Mellanox NIC has no RDMA device yet; all of them since ConnectX-4 get one.
        "has_rdma": bool(name) or device["vendor"] == MELLANOX,
    }


def numa_nodes(sys: Path) -> list[dict[str, Any]]:
    """NUMA nodes with their CPUs and memory. Shell: lscpu; numactl --hardware."""
    nodes = []
    for entry in sorted((sys / "devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        total = re.search(r"MemTotal:\s+(\d+) kB", read_text(entry / "meminfo"))
        nodes.append(
            {
                "id": int(entry.name[4:]),
                "cpus": read_text(entry / "cpulist"),
                "memory_bytes": int(total.group(1)) * 1024 if total else 0,
            }
        )
    return nodes


def kernel_config(root: Path, release: str) -> dict[str, str]:
    """The symbols in CONFIG_SYMBOLS: y, m, n, or unknown where the kernel's configuration cannot be read."""
    text = read_text(root / "boot" / f"config-{release}")
    packed = root / "proc/config.gz"
    if not text and packed.exists():
        text = gzip.decompress(packed.read_bytes()).decode()
    if not text:
        return dict.fromkeys(CONFIG_SYMBOLS, "unknown")
    values = dict(re.findall(r"^(CONFIG_\w+)=(\S+)$", text, flags=re.MULTILINE))
    return {symbol: values.get(symbol, "n") for symbol in CONFIG_SYMBOLS}


def kernel(root: Path) -> dict[str, Any]:
    """The running kernel. `preempt` is unknown where debugfs may not be read."""
    release = read_text(root / "proc/sys/kernel/osrelease")
    version = read_text(root / "proc/version")
    config = kernel_config(root, release)
    realtime = read_text(root / "sys/kernel/realtime") == "1" or "PREEMPT_RT" in version
    modules = [line.split()[0] for line in read_text(root / "proc/modules").splitlines()]
    return {
        "release": release,
        "is_realtime": realtime or config["CONFIG_PREEMPT_RT"] == "y",
        "preempt": bracketed(read_text(root / "sys/kernel/debug/sched/preempt")) or "unknown",
        "config": config,
        "cmdline": read_text(root / "proc/cmdline"),
        # The out-of-tree ib_core of MLNX_OFED and DOCA exports this; an inbox kernel does not, and without it
        # nvidia-peermem compiles to a stub that refuses to load.
        "has_peer_memory_symbols": "ib_register_peer_memory_client" in read_text(root / "proc/kallsyms"),
        "nvidia_modules": sorted(name for name in modules if name.startswith("nvidia")),
    }


def secure_boot(sys: Path) -> dict[str, Any]:
    """Secure Boot and lockdown. Shell: mokutil --sb-state; cat /sys/kernel/security/lockdown."""
    variable = sys / "firmware/efi/efivars" / SECURE_BOOT_VARIABLE
    try:
        state = "enabled" if variable.read_bytes()[-1:] == b"\x01" else "disabled"
    except OSError:
        # A machine that started without UEFI has no Secure Boot; one that hides its variables may have it.
        state = "unknown" if (sys / "firmware/efi").exists() else "disabled"
    return {"state": state, "lockdown": bracketed(read_text(sys / "kernel/security/lockdown")) or "none"}


def collect(root: Path) -> dict[str, Any]:
    """The whole fact, in the shape that playbooks/recorded/*.yml also have."""
    sys = root / "sys"
    devices = pci_devices(sys)
    nvidia = [device for device in devices if device["vendor"] == NVIDIA]
    rdma = rdma_names(sys)
    return {
        "source": "sysfs",
        "gpus": [gpu(device) for device in nvidia if device["class"].startswith("03")],
        "nvswitches": [
            {"address": device["address"], "vendor_device": f"{NVIDIA}:{device['device']}"}
            for device in nvidia
            if device["class"] == "0680"
        ],
        "nics": [nic(device, sys, rdma) for device in devices if device["class"].startswith("02")],
        "numa_nodes": numa_nodes(sys),
        "vfio_devices": [device["address"] for device in devices if device["driver"] == "vfio-pci"],
        "iommu_group_count": len(list((sys / "kernel/iommu_groups").glob("*"))),
        "kernel": kernel(root),
        "secure_boot": secure_boot(sys),
    }


def main() -> None:
    """Answer with the fact; changed is always false."""
    # Ansible ships no types for its module side.
    module = AnsibleModule(  # type: ignore[no-untyped-call]
        argument_spec={"root": {"type": "path", "default": "/"}},
        supports_check_mode=True,
    )
    module.exit_json(changed=False, ansible_facts={"kanctl_hardware": collect(Path(module.params["root"]))})


if __name__ == "__main__":
    main()
