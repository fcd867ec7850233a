"""What a cluster is: frozen values with units in their names. Reading and checking them is load.py's work."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU in a node. Shown on the node by `nvidia-smi -L`."""

    model: str
    count: int = 1
    memory_gib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network interface that training traffic may use. Shown on the node by `ip -br link`."""

    name: str
    speed_gbps: int | None = None
    kind: str = "ethernet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine of the cluster and how SSH reaches it.

    `name` holds letters, digits and hyphens only, so it can stand in a unit name or a command line. `variables` are
    the Ansible variables of this node after group_vars and host_vars were merged, for what this class does not name.
    """

    name: str
    address: str
    port: int = 22
    user: str = "root"
    private_key_file: Path | None = None
    known_hosts_file: Path | None = None
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Nic, ...] = ()
    variables: dict[str, object] = field(default_factory=dict)

    @property
    def gpu_count(self) -> int:
        """GPUs of all kinds in this node."""
        return sum(gpu.count for gpu in self.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """All nodes of one inventory, in the order of the file; the first is where launches rendezvous."""

    name: str
    path: Path
    nodes: tuple[Node, ...]
    shared_dir: str | None = None

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError when there is none."""
        return {node.name: node for node in self.nodes}[name]
