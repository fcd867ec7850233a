"""What a node can see of its own kernel, and whether the one on trial is as good as the one before."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import time
from pathlib import Path

from .machine import Boot, Trial

CMDLINE = Path("/proc/cmdline")
# Buses whose devices must keep their driver; others come and go with the kernel's own bookkeeping.
BUSES = ("pci", "usb", "virtio", "auxiliary")


def read_boot() -> Boot:
    """The running kernel. In a container the lab gives /proc/cmdline of the node's own."""
    return Boot(
        release=os.uname().release,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        arguments=tuple(CMDLINE.read_text().split()),
        unix_s=int(time.time()),
    )


def read_devices(root: Path = Path("/sys/bus")) -> tuple[str, ...]:
    """`bus/device driver` of every device on a real bus that has a driver, sorted."""
    found = []
    for bus in BUSES:
        folder = root / bus / "devices"
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            try:
                driver = os.path.basename(os.readlink(folder / name / "driver"))
            except OSError:
                continue
            found.append(f"{bus}/{name} {driver}")
    return tuple(found)


def read_failed_units() -> tuple[str, ...]:
    """Units in the state failed. Shell: systemctl --failed."""
    words = ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return tuple(sorted(line.split()[0] for line in done.stdout.splitlines() if line.strip()))


def config_sha256(release: str) -> str:
    """SHA-256 of the running configuration; empty where none is shown. Shell: zcat /proc/config.gz | sha256sum."""
    try:
        return hashlib.sha256(gzip.decompress(Path("/proc/config.gz").read_bytes())).hexdigest()
    except OSError:
        pass
    try:
        return hashlib.sha256(Path(f"/boot/config-{release}").read_bytes()).hexdigest()
    except OSError:
        return ""


def problems(
    trial: Trial, boot: Boot, devices: tuple[str, ...], failed_units: tuple[str, ...], config: str
) -> list[str]:
    """Where the running kernel is not the one on trial, or worse than the one before. Pure."""
    found = []
    if boot.release != trial.release:
        found.append(f"wanted the kernel {trial.release}, found {boot.release}")
    if trial.config_sha256 and config != trial.config_sha256:
        found.append(f"wanted a configuration with SHA-256 {trial.config_sha256[:12]}, found {config[:12] or 'none'}")
    missing = [argument for argument in trial.arguments if argument not in boot.arguments]
    if missing:
        found.append(f"wanted {' '.join(missing)} on the command line")
    now = {row.split(" ")[0] for row in devices}
    lost = [row for row in trial.devices if row.split(" ")[0] not in now]
    found += [f"{row.split(' ')[0]} had the driver {row.split(' ')[1]} and has none" for row in lost[:8]]
    if len(lost) > 8:
        found.append(f"{len(lost) - 8} more devices have no driver")
    found += [f"the unit {unit} failed" for unit in failed_units if unit not in trial.failed_units]
    return found


def root_drivers(root: Path = Path("/")) -> tuple[str, ...]:
    """Modules that drive the root disk: they must be there before any file of it can be read."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[4] == "/":
            return tuple(sorted(_modules_above(Path(os.path.realpath(root / "sys/dev/block" / words[2])))))
    return ()


def nic_drivers(root: Path = Path("/")) -> tuple[str, ...]:
    """Modules that drive NICs with a carrier: without them nobody can log in."""
    found: set[str] = set()
    for nic in (root / "sys/class/net").iterdir():
        try:
            has_carrier = (nic / "carrier").read_text().strip() == "1"
        except OSError:
            has_carrier = False
        if has_carrier and (nic / "device").exists():
            found |= _modules_above(Path(os.path.realpath(nic / "device")))
    return tuple(sorted(found))


def _modules_above(device: Path) -> set[str]:
    """The modules of a device and of everything that it hangs on."""
    links = (folder / "driver" / "module" for folder in (device, *device.parents))
    return {os.path.basename(os.readlink(link)) for link in links if link.is_symlink()}


def missing_drivers(needed: tuple[str, ...], *listings: str) -> list[str]:
    """Needed modules that no listing names; listings are those of lsinitramfs, modules.builtin, modules.order. Pure."""

    def names(text: str) -> set[str]:
        files = (line.rpartition("/")[2] for line in text.splitlines())
        return {name.partition(".ko")[0].replace("-", "_") for name in files if ".ko" in name}

    there = {name for listing in listings for name in names(listing)}
    return [module for module in needed if module.replace("-", "_") not in there]
