"""What a probe found on a node, as frozen values; probe.py says how each is measured.

The field names are the keys of probe.py's JSON, which cannot share these classes because it runs where kanctl is not.
"""

import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from ..errors import FactsInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """Sizes and inodes at one path; inodes_total is 0 where the file system has no fixed number."""

    path: str
    total_bytes: int
    free_bytes: int
    used_bytes: int
    inodes_total: int
    inodes_free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Virtualization:
    """Names as systemd-detect-virt gives them; empty for none."""

    container: str
    vm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockSync:
    """Time services that run, and whether the kernel's clock follows one."""

    services: tuple[str, ...]
    is_synchronised: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The folder that all nodes share, and how long writing a small file into it took."""

    path: str
    is_hung: bool
    error: str | None
    file_system: FileSystem | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Logical CPUs, frequency governors in use, clock source."""

    count: int
    governors: tuple[str, ...]
    clocksource: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The running kernel and the arguments that the last provisioning wrote down for it."""

    release: str
    cmdline: str
    is_realtime: bool
    provisioned_arguments: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Zombies, and `pid name` of tasks that waited uninterruptibly for seconds."""

    zombies: int
    stuck: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Time since the start, and kills for lack of memory since then, counted in `oom_source`."""

    uptime_s: float
    oom_kills: int | None
    oom_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another node's SSH port as seen from this node."""

    name: str
    ms: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable that every login or service gets."""

    name: str
    value: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """GPUs on the PCI bus, and as the driver counts them (None: it does not answer)."""

    pci_count: int
    has_nvidia_smi: bool
    driver_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """Everything a probe finds."""

    hostname: str
    virtualization: Virtualization
    clock_sync: ClockSync
    root_file_system: FileSystem
    shared: Shared | None
    memory_total_bytes: int
    swap_total_bytes: int
    cpu: Cpu
    kernel: Kernel
    tasks: Tasks
    boot: Boot
    peers: tuple[Peer, ...]
    bad_environment: tuple[Variable, ...]
    gpus: Gpus
    venv: str
    has_venv: bool
    versions: dict[str, str | None]

    @property
    def is_container(self) -> bool:
        """Whether the kernel, its clock and its settings belong to a host that this node cannot change."""
        return bool(self.virtualization.container)


def facts_from_dict(document: Any) -> NodeFacts:
    """The facts of a probe's JSON document. Raises FactsInvalid with the key that is missing."""
    facts = _build(NodeFacts, document, "facts")
    assert isinstance(facts, NodeFacts)
    return facts


def _build(kind: Any, value: Any, where: str) -> Any:
    """`value`, a part of a JSON document, as the type `kind`."""
    if isinstance(kind, types.UnionType):
        (kind,) = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else _build(kind, value, where)
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise FactsInvalid(f"{where}: wanted an object, found {value!r}")
        missing = [field.name for field in fields(kind) if field.name not in value]
        if missing:
            raise FactsInvalid(f"{where}: the probe's answer has no {', '.join(missing)}")
        hints = typing.get_type_hints(kind)
        return kind(**{name: _build(hints[name], value[name], f"{where}.{name}") for name in hints})  # type: ignore[operator]
    if typing.get_origin(kind) is tuple:
        return tuple(_build(typing.get_args(kind)[0], item, where) for item in value)
    return value
