"""The inventory of a lab: an ordinary Ansible one, as a user would write it for real machines."""

from collections.abc import Mapping
from pathlib import Path

from .network import node_address
from .state import SHARED_DIR_IN_NODE, LabRecord

HEADER = """\
# Written by `kanctl lab up --name {name}`, and written anew by the next one.
all:
  vars:
    kanctl_cluster_name: {name}
    # The folder that every node shares.
    kanctl_shared_dir: {shared_dir}
    kanctl_known_hosts_file: {known_hosts}
    ansible_user: root
    ansible_ssh_private_key_file: {private_key}
    ansible_ssh_common_args: >-
      -o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes
    ansible_python_interpreter: /usr/bin/python3
  children:
    nodes:
      hosts:
"""


def inventory_text(record: LabRecord, *, known_hosts: Path, private_key: Path) -> str:
    """The YAML text of hosts.yml."""
    lines = [header_text(record.name, known_hosts=known_hosts, private_key=private_key)]
    for index in range(1, record.node_count + 1):
        name = f"node{index}"
        lines.append(f"        {name}:\n          ansible_host: {node_address(record.subnet, index)}\n")
        lines.append(recorded_hardware_text(record.hardware, name))
    return "".join(lines)


def header_text(name: str, *, known_hosts: Path, private_key: Path) -> str:
    """What all nodes have in common, up to the list of them."""
    return HEADER.format(name=name, shared_dir=SHARED_DIR_IN_NODE, known_hosts=known_hosts, private_key=private_key)


def recorded_hardware_text(hardware: Mapping[str, str], name: str) -> str:
    """The variable of a node whose facts are recorded ones; empty for other nodes."""
    if name not in hardware:
        return ""
    return (
        "          # The facts come from this record, so that roles for GPUs can be tried without any.\n"
        f"          kanctl_recorded_hardware: {hardware[name]}\n"
    )


def known_hosts_text(public_keys: Mapping[str, str]) -> str:
    """One line per address for known_hosts; `public_keys` maps addresses to the text of a .pub file."""
    return "".join(f"{address} {' '.join(key.split()[:2])}\n" for address, key in public_keys.items())
