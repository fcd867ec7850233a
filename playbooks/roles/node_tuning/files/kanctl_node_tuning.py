#!/usr/bin/python3
"""Put the CPU governor, huge-page policy and NIC interrupts of this node as /etc/kanctl/node-tuning.json wants them.

`check` prints one line per difference, `apply` writes them and prints what it wrote. Installed by kanctl's role
node_tuning and started at boot by kanctl-node-tuning.service. Standard library only: it runs before anything of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

EXIT_DIFFERS = 3


def parse_cpulist(text: str) -> list[int]:
    """CPU numbers of a kernel list: `0-3,8` gives [0, 1, 2, 3, 8]."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def read(path: Path) -> str:
    """The file's text; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def governor_changes(root: Path, governor: str) -> list[tuple[Path, str]]:
    """(file, value) for each CPU with another governor. Shell: cpupower frequency-info -p."""
    if not governor:
        return []
    files = sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_governor"))
    offered = [path for path in files if governor in read(path.parent / "scaling_available_governors").split()]
    return [(path, governor) for path in offered if read(path) != governor]


def hugepage_changes(root: Path, policy: dict[str, str]) -> list[tuple[Path, str]]:
    """(file, value) where the policy differs. Shell: cat /sys/kernel/mm/transparent_hugepage/enabled."""
    folder = root / "sys/kernel/mm/transparent_hugepage"
    wanted = [(folder / name, value) for name, value in sorted(policy.items()) if value]
    return [(path, value) for path, value in wanted if path.exists() and f"[{value}]" not in read(path)]


def local_cpus(root: Path, interface: str, isolated: set[int]) -> list[int]:
    """CPUs of the NIC's own NUMA node without the isolated ones; every CPU where the NIC has no node."""
    numa_node = read(root / "sys/class/net" / interface / "device/numa_node")
    if numa_node in ("", "-1"):
        text = read(root / "sys/devices/system/cpu/online")
    else:
        text = read(root / f"sys/devices/system/node/node{numa_node}/cpulist")
    return [cpu for cpu in parse_cpulist(text) if cpu not in isolated]


def irq_changes(root: Path, interface: str, isolated: set[int]) -> list[tuple[Path, str]]:
    """(file, value) that spread the NIC's queues over its node's CPUs, one CPU per queue in turn.

    Shell: ls /sys/class/net/NIC/device/msi_irqs; cat /proc/irq/N/smp_affinity_list.
    """
    cpus = local_cpus(root, interface, isolated)
    irqs = sorted(int(entry.name) for entry in (root / "sys/class/net" / interface / "device/msi_irqs").glob("*"))
    if not cpus:
        return []
    wanted = [(root / f"proc/irq/{irq}/smp_affinity_list", str(cpus[i % len(cpus)])) for i, irq in enumerate(irqs)]
    return [(path, value) for path, value in wanted if path.exists() and read(path) != value]


def all_changes(root: Path, config: dict[str, Any]) -> list[tuple[Path, str]]:
    """Everything that differs from the configuration."""
    isolated = set(parse_cpulist(config["isolated_cpus"]))
    changes = governor_changes(root, config["cpu_governor"])
    changes += hugepage_changes(root, config["transparent_hugepage"])
    for interface in config["irq_interfaces"]:
        changes += irq_changes(root, interface, isolated)
    return changes


def write(path: Path, value: str) -> bool:
    """Write one value; False where the kernel keeps it for itself, as it does with managed interrupts."""
    before = read(path) or "unset"
    try:
        path.write_text(value)
    except OSError as error:
        print(f"{path}: wanted {value}, the kernel refused: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return False
    print(f"{path}: {before} -> {value}")
    return True


def main(argv: list[str] | None = None) -> int:
    """0: as wanted. 3: `check` found a difference. 1: the kernel refused a value that is not an interrupt's."""
    parser = argparse.ArgumentParser(description="Apply or check the tuning of this node.")
    parser.add_argument("verb", choices=["apply", "check"])
    parser.add_argument("--config", type=Path, default=Path("/etc/kanctl/node-tuning.json"))
    parser.add_argument("--root", type=Path, default=Path("/"), help="another file tree, for tests")
    arguments = parser.parse_args(argv)
    changes = all_changes(arguments.root, json.loads(arguments.config.read_text()))
    if arguments.verb == "check":
        for path, value in changes:
            print(f"{path}: {read(path) or 'unset'}, wanted {value}")
        return EXIT_DIFFERS if changes else 0
    refused = [path for path, value in changes if not write(path, value)]
    return 1 if any("irq" not in path.parts for path in refused) else 0


if __name__ == "__main__":
    sys.exit(main())
