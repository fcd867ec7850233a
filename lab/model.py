"""A lab as data: what was asked for (LabSpec) and what there is (LabStatus)."""

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import LabSpecInvalid

NODES_MAX = 50
DEFAULT_NODES = 2
STATE_ROOT = Path("/var/lib/kanctl")
CACHE_ROOT = Path("/var/cache/kanctl")
# Linux allows 15 characters for an interface; "kc-", the name, "-" and two digits must fit. No hyphen: it would make
# the bridge of a lab "a-1" look like node 1 of a lab "a".
NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
HARDWARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NODE_NAME = re.compile(r"node([1-9][0-9]?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSpec:
    """The lab that is wanted. Raises LabSpecInvalid when it cannot exist."""

    name: str = "lab"
    # None keeps what is there; a new lab then gets DEFAULT_NODES.
    node_count: int | None = None
    # (node, name of a hardware record) pairs: the node's facts come from that record, not from the container.
    hardware: tuple[tuple[str, str], ...] = ()
    # User and group that own the SSH key and the inventory: whoever called sudo.
    owner: tuple[int, int] = (0, 0)
    state_root: Path = STATE_ROOT
    cache_root: Path = CACHE_ROOT

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.node_count is not None and not 1 <= self.node_count <= NODES_MAX:
            raise LabSpecInvalid(f"wanted 1 to {NODES_MAX} nodes, found {self.node_count}")
        for node, record in self.hardware:
            if not NODE_NAME.fullmatch(node) or not HARDWARE.fullmatch(record):
                raise LabSpecInvalid(
                    f"wanted hardware as NODE=NAME, found {node}={record}", "for example: --hardware node2=NAME"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node as it is now.

    `state` is running (SSH answers), starting (no SSH yet), stopped, or unsupervised: its supervisor was killed, so it
    would not come back from a reboot, and the next `up` starts it anew.
    """

    name: str
    address: str
    state: str
    supervisor_pid: int | None
    hardware: str | None
    console_log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LabStatus:
    """A lab as it is now."""

    name: str
    subnet: str
    inventory: Path
    shared_dir: Path
    nodes: tuple[NodeStatus, ...]
    # containers, or machines: there the nodes share no folder.
    kind: str = "containers"

    @property
    def is_running(self) -> bool:
        """Every node answers over SSH."""
        return all(node.state == "running" for node in self.nodes)

    def to_json(self) -> dict[str, object]:
        """The document of `kanctl lab status --json`."""
        nodes = [
            {
                "name": node.name,
                "address": node.address,
                "state": node.state,
                "supervisor_pid": node.supervisor_pid,
                "recorded_hardware": node.hardware,
                "console_log": str(node.console_log),
            }
            for node in self.nodes
        ]
        return {
            "name": self.name,
            "kind": self.kind,
            "running": self.is_running,
            "subnet": self.subnet,
            "inventory": str(self.inventory),
            "shared_dir_on_host": str(self.shared_dir),
            "nodes": nodes,
        }


def check_name(name: str) -> str:
    """The name itself. Raises LabSpecInvalid when it cannot name a lab."""
    if not NAME.fullmatch(name):
        raise LabSpecInvalid(
            f"wanted a lab name of at most 8 letters and digits that starts with a letter, found {name!r}",
            "for example: --name lab2",
        )
    return name


def parse_hardware(texts: list[str]) -> tuple[tuple[str, str], ...]:
    """`node2=NAME` words as pairs; the check of each is LabSpec's."""
    return tuple((node, record) for node, _, record in (text.partition("=") for text in texts))
