"""The inventory of a lab of machines, and their known_hosts: every node is a port of this machine."""

from collections.abc import Mapping
from pathlib import Path

from ..inventory_file import header_text, recorded_hardware_text
from .state import LOOPBACK, MachinesRecord


def inventory_text(record: MachinesRecord, *, known_hosts: Path, private_key: Path) -> str:
    """The YAML text of hosts.yml."""
    lines = [header_text(record.name, known_hosts=known_hosts, private_key=private_key)]
    for name, port in record.ports.items():
        lines.append(f"        {name}:\n          ansible_host: {LOOPBACK}\n          ansible_port: {port}\n")
        lines.append(recorded_hardware_text(record.hardware, name))
    return "".join(lines)


def known_hosts_text(public_keys: Mapping[int, str]) -> str:
    """One line per port; `public_keys` maps ports to the text of a .pub file."""
    return "".join(f"[{LOOPBACK}]:{port} {' '.join(key.split()[:2])}\n" for port, key in public_keys.items())
