"""Where a lab's files lie, what its objects on the host are called, and the record of it that later commands read.

Every name is derived from the lab's, so that `down` finds its objects even when the record is lost.
"""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import LabError, LabMissing

SHARED_DIR_IN_NODE = "/srv/kanctl"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabRecord:
    """What `up` decided and later commands must repeat."""

    name: str
    subnet: str
    node_count: int
    hardware: dict[str, str]
    # The unpacked root file system; a newer kanctl does not change it under running nodes.
    rootfs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPaths:
    """Paths and host names of one lab."""

    name: str
    state_root: Path

    @property
    def folder(self) -> Path:
        """Everything of this lab on disk; removed by `down`."""
        return self.state_root / self.name

    @property
    def record(self) -> Path:
        """The LabRecord as JSON."""
        return self.folder / "lab.json"

    @property
    def image(self) -> Path:
        """The layer of files that all nodes share above the root file system."""
        return self.folder / "image"

    @property
    def shared(self) -> Path:
        """The folder that every node sees as /srv/kanctl."""
        return self.folder / "shared"

    @property
    def private_key(self) -> Path:
        """The key that opens every node for root."""
        return self.folder / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The nodes' host keys."""
        return self.folder / "ssh" / "known_hosts"

    @property
    def inventory(self) -> Path:
        """The inventory that the other commands take."""
        return self.folder / "inventory" / "hosts.yml"

    @property
    def bridge(self) -> str:
        """The host's bridge for this lab."""
        return f"kc-{self.name}"

    @property
    def nft_table(self) -> str:
        """The host's nft table for this lab."""
        return f"kanctl_{self.name}"

    @property
    def netns_pattern(self) -> re.Pattern[str]:
        """Matches the network namespaces of this lab and of no other."""
        return re.compile(rf"kanctl-{self.name}-node[0-9]+")

    @property
    def cgroup(self) -> str:
        """The lab's cgroup, relative to the base that cgroup.py finds."""
        return f"kanctl/{self.name}"

    def node(self, index: int) -> "NodePaths":
        """The paths of node number `index`, from 1."""
        return NodePaths(lab=self, index=index)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePaths:
    """Paths and host names of one node."""

    lab: LabPaths
    index: int

    @property
    def name(self) -> str:
        """The node's host name inside."""
        return f"node{self.index}"

    @property
    def machine(self) -> str:
        """What nspawn calls it on the host; two labs may both have a node1."""
        return f"kanctl-{self.lab.name}-{self.name}"

    @property
    def folder(self) -> Path:
        """Everything of this node on disk."""
        return self.lab.folder / "nodes" / self.name

    @property
    def upper(self) -> Path:
        """What differs from the shared root file system."""
        return self.folder / "upper"

    @property
    def work(self) -> Path:
        """The scratch folder that overlayfs asks for."""
        return self.folder / "work"

    @property
    def root(self) -> Path:
        """Where the node's root file system is mounted."""
        return self.folder / "root"

    @property
    def console_log(self) -> Path:
        """What the node and its supervisor said."""
        return self.folder / "console.log"

    @property
    def supervisor_pid(self) -> Path:
        """Written by the supervisor."""
        return self.folder / "supervisor.pid"

    @property
    def netns(self) -> str:
        """The node's network namespace."""
        return self.machine

    @property
    def host_interface(self) -> str:
        """The host's end of the node's cable."""
        return f"kc-{self.lab.name}-{self.index}"

    @property
    def cgroup(self) -> str:
        """The node's cgroup, relative to the base that cgroup.py finds."""
        return f"{self.lab.cgroup}/{self.name}"


def save_record(paths: LabPaths, record: LabRecord) -> None:
    """Write the record, complete or not at all."""
    write_atomically(paths.record, json.dumps(asdict(record), indent=2) + "\n")


def load_record(paths: LabPaths) -> LabRecord | None:
    """The lab's record, None when there is no such lab. Raises LabError when the file cannot be used."""
    try:
        text = paths.record.read_text()
    except FileNotFoundError:
        return None
    try:
        return LabRecord(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise LabError(
            f"{paths.record} is not a lab's record: {error}", f"kanctl lab down --name {paths.name}, then up again"
        ) from error


def require_record(paths: LabPaths) -> LabRecord:
    """The lab's record. Raises LabMissing."""
    record = load_record(paths)
    if record is None:
        raise LabMissing(
            f"wanted a lab named {paths.name}, found none in {paths.state_root}", f"kanctl lab up --name {paths.name}"
        )
    return record


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that readers see the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text)
    partial.chmod(mode)
    os.replace(partial, path)
