"""How a lab is now, and the way into its nodes. Changes nothing and needs no root."""

import os
import socket
from pathlib import Path

from kanctl.errors import NodeUnreachableError

from . import processes, tools
from .errors import LabError, LabSpecInvalid
from .model import STATE_ROOT, LabStatus, NodeStatus, check_name
from .network import node_address
from .state import LabPaths, LabRecord, NodePaths, require_record

SSH_PORT = 22


def read_status(name: str, state_root: Path = STATE_ROOT) -> LabStatus:
    """The lab as it is now. Raises LabMissing."""
    paths = LabPaths(name=check_name(name), state_root=state_root)
    record = require_record(paths)
    nodes = [_read_node(paths.node(index), record) for index in range(1, record.node_count + 1)]
    return LabStatus(
        name=name, subnet=record.subnet, inventory=paths.inventory, shared_dir=paths.shared, nodes=tuple(nodes)
    )


def ssh_words(name: str, node_name: str, command: list[str], state_root: Path = STATE_ROOT) -> list[str]:
    """The ssh command that runs `command` on a node, or opens a shell.

    Raises LabMissing, LabSpecInvalid for a wrong node, NodeUnreachableError when the node does not answer.
    """
    paths = LabPaths(name=check_name(name), state_root=state_root)
    known = addresses(require_record(paths))
    if node_name not in known:
        raise LabSpecInvalid(f"wanted a node of lab {name} ({', '.join(known)}), found {node_name!r}")
    require_readable_key(paths)
    if not answers_ssh(known[node_name]):
        raise NodeUnreachableError(
            f"{node_name} ({known[node_name]}) does not answer over SSH", f"kanctl lab up --name {name}"
        )
    return login_words(paths, known[node_name], SSH_PORT, command)


def login_words(paths: LabPaths, address: str, port: int, command: list[str]) -> list[str]:
    """The ssh command for an address of the lab; host keys are checked against the lab's own."""
    options = [
        f"UserKnownHostsFile={paths.known_hosts}",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
    ]
    words = [tools.find("ssh"), "-i", str(paths.private_key), "-p", str(port)]
    words += [part for option in options for part in ("-o", option)]
    return [*words, f"root@{address}", *command]


def require_readable_key(paths: LabPaths) -> None:
    """Raises LabError for another user than the one who brought the lab up."""
    if not os.access(paths.private_key, os.R_OK):
        raise LabError(f"{paths.private_key} belongs to whoever brought the lab up", "run the same command with sudo")


def addresses(record: LabRecord) -> dict[str, str]:
    """Node names and their addresses, in order."""
    return {f"node{index}": node_address(record.subnet, index) for index in range(1, record.node_count + 1)}


def answers_ssh(address: str, port: int = SSH_PORT, patience_s: float = 2) -> bool:
    """Whether an SSH server speaks at the address."""
    try:
        with socket.create_connection((address, port), timeout=1) as connection:
            connection.settimeout(patience_s)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _read_node(node: NodePaths, record: LabRecord) -> NodeStatus:
    address = addresses(record)[node.name]
    supervisor = processes.find_supervisor(node)
    return NodeStatus(
        name=node.name,
        address=address,
        state=_state(node, address, supervisor),
        supervisor_pid=supervisor,
        hardware=record.hardware.get(node.name),
        console_log=node.console_log,
    )


def _state(node: NodePaths, address: str, supervisor: int | None) -> str:
    if supervisor is None:
        return "unsupervised" if processes.find_node(node) else "stopped"
    return "running" if answers_ssh(address) else "starting"
