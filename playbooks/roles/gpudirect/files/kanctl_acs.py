#!/usr/bin/python3
"""Let GPUs and NICs behind one PCIe switch reach each other directly: no ACS redirect on the bridges above them.

With redirection on, every peer-to-peer write goes up to the root complex and back, which costs most of the bandwidth.
It is what keeps the devices of different virtual machines apart, so a host that gives devices to VFIO is refused.
`check` tells and `apply` writes; both print one line per bridge that differs. Installed by kanctl's role gpudirect and
run at boot by kanctl-acs.service, because firmware and kernel set the bits anew each time.
Source: PCI Express Base Specification, ACS Extended Capability; docs.nvidia.com/deeplearning/nccl (troubleshooting).
Shell: lspci -vvv -s ADDRESS | grep ACSCtl.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

EXIT_DIFFERS = 3
EXIT_REFUSED = 2

NVIDIA, MELLANOX = "0x10de", "0x15b3"
PCI_ADDRESS = re.compile(r"^[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$")

# Extended capabilities start here; each header holds its id (16 bits), version (4) and the offset of the next (12).
EXTENDED_CONFIG = 0x100
ACS_CAPABILITY = 0x000D
ACS_CONTROL = 6
# P2P Request Redirect, P2P Completion Redirect, Upstream Forwarding. Source Validation (0x01) does no harm and stays.
REDIRECT_BITS = 0x04 | 0x08 | 0x10


def read(path: Path) -> str:
    """The file's text; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def acs_control_offset(config: bytes) -> int | None:
    """Where the ACS Control register lies in a device's configuration space; None without that capability."""
    offset = EXTENDED_CONFIG
    seen: set[int] = set()
    while offset >= EXTENDED_CONFIG and offset not in seen and offset + 8 <= len(config):
        seen.add(offset)
        header = int.from_bytes(config[offset : offset + 4], "little")
        if header in (0, 0xFFFFFFFF):
            return None
        if header & 0xFFFF == ACS_CAPABILITY:
            return offset + ACS_CONTROL
        offset = header >> 20 & 0xFFC
    return None


def is_peer(device: Path) -> bool:
    """Whether the device takes part in GPU-to-GPU or GPU-to-NIC traffic."""
    vendor, device_class = read(device / "vendor"), read(device / "class")
    is_gpu = vendor == NVIDIA and device_class.startswith("0x03")
    is_rdma_nic = device_class.startswith("0x02") and (vendor == MELLANOX or (device / "infiniband").exists())
    return is_gpu or is_rdma_nic


def bridges_above_peers(root: Path) -> list[Path]:
    """The bridges between the root ports and every GPU and RDMA NIC, each once, in address order."""
    folder = root / "sys/bus/pci/devices"
    names = {
        part
        for device in folder.glob("*")
        if is_peer(device)
        for part in device.resolve().parts[:-1]
        if PCI_ADDRESS.match(part)
    }
    return [folder / name for name in sorted(names)]


def redirecting(bridge: Path) -> tuple[int, int] | None:
    """(offset, value) of an ACS Control register that redirects; None where nothing is to do."""
    config = (bridge / "config").read_bytes()
    offset = acs_control_offset(config)
    if offset is None:
        return None
    value = int.from_bytes(config[offset : offset + 2], "little")
    return (offset, value) if value & REDIRECT_BITS else None


def clear(bridge: Path, offset: int, value: int) -> None:
    """Write the register without the redirect bits. Raises OSError where the kernel is locked down."""
    descriptor = os.open(bridge / "config", os.O_WRONLY)
    try:
        os.pwrite(descriptor, (value & ~REDIRECT_BITS).to_bytes(2, "little"), offset)
    finally:
        os.close(descriptor)


def vfio_devices(root: Path) -> list[str]:
    """Addresses of the devices that VFIO holds. Shell: ls /sys/bus/pci/drivers/vfio-pci."""
    folder = root / "sys/bus/pci/drivers/vfio-pci"
    return sorted(entry.name for entry in folder.glob("*") if PCI_ADDRESS.match(entry.name))


def apply(found: list[tuple[Path, int, int]]) -> int:
    """Clear every register that redirects; 1 where the kernel does not allow it."""
    for bridge, offset, value in found:
        try:
            clear(bridge, offset, value)
        except OSError as error:
            print(
                f"{bridge.name}: wanted to write ACS Control, the kernel refused ({os.strerror(error.errno or 0)}). "
                "Next: under Secure Boot lockdown use the boot argument pci=config_acs= or switch ACS off in the BIOS.",
                file=sys.stderr,
            )
            return 1
    return 0


def main(argv: list[str] | None = None) -> int:
    """0: no bridge redirects. 3: `check` found some. 2: refused because of VFIO. 1: the kernel refused a write."""
    parser = argparse.ArgumentParser(description="Switch off ACS redirection above GPUs and RDMA NICs.")
    parser.add_argument("verb", choices=["apply", "check"])
    parser.add_argument("--root", type=Path, default=Path("/"), help="another file tree, for tests")
    arguments = parser.parse_args(argv)
    passed_through = vfio_devices(arguments.root)
    if passed_through:
        print(
            f"wanted a host that passes no device to virtual machines, found {', '.join(passed_through)} on vfio-pci. "
            "Next: set gpudirect_acs to leave in the inventory.",
            file=sys.stderr,
        )
        return EXIT_REFUSED
    states = [(bridge, redirecting(bridge)) for bridge in bridges_above_peers(arguments.root)]
    found = [(bridge, *state) for bridge, state in states if state is not None]
    for bridge, _offset, value in found:
        print(f"{bridge.name}: ACS Control {value:#06x} -> {value & ~REDIRECT_BITS:#06x}")
    if arguments.verb == "check":
        return EXIT_DIFFERS if found else 0
    return apply(found)


if __name__ == "__main__":
    sys.exit(main())
