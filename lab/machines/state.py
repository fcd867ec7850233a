"""Where a machine's files lie and the record that later commands read, beside what lab/state.py says of every lab."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import LabError, LabMissing, LabSpecInvalid
from ..state import LabPaths, NodePaths, write_atomically

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinesRecord:
    """What `up` decided and later commands must repeat."""

    name: str
    # Node name -> the port on this machine's loopback address that leads to its SSH server.
    ports: dict[str, int]
    hardware: dict[str, str]
    # The disk image that all nodes share; a newer kanctl does not change it under them.
    image: str

    def require_node(self, node_name: str) -> str:
        """The name itself. Raises LabSpecInvalid when the lab has no such node."""
        if node_name not in self.ports:
            raise LabSpecInvalid(f"wanted a node of lab {self.name} ({', '.join(self.ports)}), found {node_name!r}")
        return node_name


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePaths:
    """Paths and host names of one machine."""

    node: NodePaths

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def guest(self) -> str:
        """What QEMU calls it; the word by which its process is found again."""
        return self.node.machine

    @property
    def disk(self) -> Path:
        """What differs from the shared image."""
        return self.node.folder / "disk.qcow2"

    @property
    def seed(self) -> Path:
        """The identity that the machine reads at its first boot."""
        return self.node.folder / "seed.tar"

    @property
    def serial_log(self) -> Path:
        """Everything that GRUB and the kernels said since the machine was made."""
        return self.node.folder / "serial.log"

    @property
    def qemu_log(self) -> Path:
        """What QEMU itself said."""
        return self.node.console_log

    @property
    def qmp_socket(self) -> Path:
        """Where QEMU takes commands."""
        return self.node.folder / "qmp.sock"


def record_path(paths: LabPaths) -> Path:
    """The MachinesRecord as JSON; a lab that has it is a lab of machines."""
    return paths.folder / "machines.json"


def machine(paths: LabPaths, node_name: str) -> MachinePaths:
    """The paths of the machine called `node_name`."""
    return MachinePaths(node=paths.node(int(node_name.removeprefix("node"))))


def save_record(paths: LabPaths, record: MachinesRecord) -> None:
    """Write the record, complete or not at all."""
    write_atomically(record_path(paths), json.dumps(asdict(record), indent=2) + "\n")


def load_record(paths: LabPaths) -> MachinesRecord | None:
    """The lab's record, None when there is no such lab. Raises LabError when the file cannot be used."""
    try:
        text = record_path(paths).read_text()
    except FileNotFoundError:
        return None
    try:
        return MachinesRecord(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise LabError(
            f"{record_path(paths)} is not a lab's record: {error}",
            f"kanctl lab down --name {paths.name}, then up again",
        ) from error


def require_record(paths: LabPaths) -> MachinesRecord:
    """The lab's record. Raises LabMissing."""
    record = load_record(paths)
    if record is None:
        raise LabMissing(
            f"wanted a lab of machines named {paths.name}, found none in {paths.state_root}",
            f"kanctl lab up --machines --name {paths.name}",
        )
    return record
