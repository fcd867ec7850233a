#!/usr/bin/python
"""Ansible module: what a node's kernel is and which devices it drives, for `kanctl kernel`; it never changes anything.

It runs on the node with nothing but Python's standard library and needs no root: what only root may read is null.
kanctl calls `collect` for the machine that it runs on as well, so Ansible is imported only when it runs as a module.
"""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

DOCUMENTATION = r"""
module: kanctl_kernel_facts
short_description: Collects the running kernel's configuration, command line, modules and devices
description:
  - Reads sysfs, procfs, /boot, /lib/modules and modprobe.d. Nothing is changed and no root is needed.
options:
  root:
    description: Folder that holds C(sys), C(proc), C(boot), C(lib) and C(etc). Another value than C(/) is for tests.
    type: path
    default: /
author: [kanctl]
"""

EXAMPLES = r"""
- name: The kernel's facts are known
  kanctl_kernel_facts:
"""

RETURN = r"""
kernel_facts:
  description: One node's entry of a fleet file; docs/kernel.md lists its keys.
  returned: always
  type: dict
"""

CONFIG_LINE = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)
# Parameters of drivers whose values decide a capability; every other module's are left out.
PARAMETERS = ("nvidia_uvm", "nvidia_peermem", "nvme_core", "nvme")
NVIDIA_PARAMETER = re.compile(r"^(\w+): *(.*?) *$", re.MULTILINE)
MODPROBE_FOLDERS = ("etc/modprobe.d", "run/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
PEERMEM_SYMBOL = "ib_register_peer_memory_client"


def read_text(path: Path) -> str | None:
    """The file's text; None where there is none or it may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def module_name(name: str) -> str:
    """The kernel's spelling of a module or its file."""
    return re.sub(r"\.ko(\.(xz|zst|gz))?$", "", name.rpartition("/")[2]).replace("-", "_")


def read_config(root: Path, release: str) -> dict[str, str] | None:
    """Symbol -> value of the running kernel, from the first place that has it."""
    packed = root / "proc/config.gz"
    try:
        text: str | None = gzip.decompress(packed.read_bytes()).decode("utf-8", "replace")
    except OSError:
        text = read_text(root / f"boot/config-{release}") or read_text(root / f"lib/modules/{release}/config")
    return dict(CONFIG_LINE.findall(text)) if text else None


def link_name(path: Path) -> str | None:
    """The last part of where a link points; None where there is no link."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return None


def read_devices(root: Path) -> list[dict[str, Any]]:
    """Every device with a modalias, with the driver that has it and that driver's module."""
    devices = []
    base = root / "sys/devices"
    for folder, names, files in os.walk(base):
        names.sort()
        if "modalias" not in files:
            continue
        path = Path(folder)
        alias = (read_text(path / "modalias") or "").strip()
        driver = link_name(path / "driver")
        module = link_name(path / "driver" / "module") if driver else None
        if alias:
            shown = "/" + str(path.relative_to(root))
            devices.append({"path": shown, "modalias": alias, "driver": driver, "module": module})
    return devices


def read_loaded(root: Path) -> list[str]:
    """Loaded modules, as lsmod shows them."""
    return [line.split()[0] for line in (read_text(root / "proc/modules") or "").splitlines() if line.strip()]


def read_builtin(root: Path, release: str) -> list[str]:
    """Modules that are built in, from modules.builtin."""
    text = read_text(root / f"lib/modules/{release}/modules.builtin") or ""
    return sorted(module_name(line) for line in text.split())


def read_modprobe(root: Path) -> dict[str, str]:
    """File -> text of every file of modprobe.d."""
    found = {}
    for folder in MODPROBE_FOLDERS:
        try:
            paths = sorted((root / folder).glob("*.conf"))
        except OSError:
            continue
        for path in paths:
            text = read_text(path)
            if text is not None:
                found["/" + str(path.relative_to(root))] = text
    return found


def read_parameters(root: Path) -> dict[str, str]:
    """`module.parameter` -> live value, for the modules that decide a capability."""
    found = {}
    for module in PARAMETERS:
        folder = root / "sys/module" / module / "parameters"
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            value = read_text(folder / name)
            if value is not None:
                found[f"{module}.{name}"] = value.strip()
    return {**found, **read_nvidia_parameters(root)}


def read_nvidia_parameters(root: Path) -> dict[str, str]:
    """`nvidia.NVreg_X` -> live value: nvidia keeps its parameters out of sysfs, and without the prefix in its own file.

    The same in a shell: cat /proc/driver/nvidia/params. Source: nv-procfs.c of NVIDIA/open-gpu-kernel-modules.
    """
    text = read_text(root / "proc/driver/nvidia/params") or ""
    return {f"nvidia.NVreg_{name}": value.strip('"') for name, value in NVIDIA_PARAMETER.findall(text)}


def read_nvidia(root: Path) -> dict[str, Any] | None:
    """Version of the loaded NVIDIA driver and whether its kernel modules are the open ones; None without it."""
    text = read_text(root / "proc/driver/nvidia/version")
    version = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", text or "")
    if text is None or version is None:
        return None
    return {"version": version.group(1), "open": "Open Kernel Module" in text}


def has_peermem_symbols(root: Path) -> bool | None:
    """Whether ib_core offers what nvidia-peermem needs (only MOFED's and DOCA's does); None where it cannot be seen."""
    text = read_text(root / "proc/kallsyms")
    return PEERMEM_SYMBOL in text if text else None


def root_modules(root: Path, devices: list[dict[str, Any]]) -> list[str]:
    """The modules of the devices that the root file system's disk hangs on."""
    mounts = (read_text(root / "proc/self/mountinfo") or "").splitlines()
    numbers = [line.split()[2] for line in mounts if len(line.split()) > 4 and line.split()[4] == "/"]
    found: list[str] = []
    for number in numbers[-1:]:
        place = os.path.realpath(root / "sys/dev/block" / number)
        found += [row["module"] for row in devices if row["module"] and _is_below(place, root, row["path"])]
    return sorted(set(found))


def _is_below(place: str, root: Path, device: str) -> bool:
    return place.startswith(f"{root / device.lstrip('/')}/")


def read_distribution(root: Path) -> str:
    """`debian 12`, from os-release."""
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', read_text(root / "etc/os-release") or "", re.MULTILINE))
    return f"{values.get('ID', 'unknown')} {values.get('VERSION_ID', '')}".strip()


def collect(root: Path = Path("/")) -> dict[str, Any]:
    """One node's entry of a fleet file."""
    uname = os.uname()
    release = (read_text(root / "proc/sys/kernel/osrelease") or uname.release).strip()
    devices = read_devices(root)
    return {
        "machine": uname.machine,
        "release": release,
        "version": (read_text(root / "proc/sys/kernel/version") or uname.version).strip(),
        "distribution": read_distribution(root),
        "config": read_config(root, release),
        "cmdline": (read_text(root / "proc/cmdline") or "").strip(),
        "modprobe": read_modprobe(root),
        "devices": devices,
        "loaded": read_loaded(root),
        "builtin": read_builtin(root, release),
        "root_device_modules": root_modules(root, devices),
        "parameters": read_parameters(root),
        "nvidia": read_nvidia(root),
        "ib_core_peermem": has_peermem_symbols(root),
    }


def main() -> None:
    """Run as an Ansible module."""
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(  # type: ignore[no-untyped-call]
        argument_spec={"root": {"type": "path", "default": "/"}},
        supports_check_mode=True,
    )
    module.exit_json(changed=False, kernel_facts=collect(Path(module.params["root"])))


if __name__ == "__main__":
    main()
