"""One look at a node and its GPUs as frozen values, and their JSON form. Reading them is host.py's and nvml.py's work.

None means that this machine has no such value; fields.py has the meaning, unit and shell command of each.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from .errors import SampleInvalid

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSample:
    """One file system."""

    path: str
    used_bytes: int
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NicSample:
    """One network interface, or one port of an RDMA device, whose traffic the interface's counters leave out."""

    name: str
    is_rdma: bool = False
    received_bytes_per_s: float | None
    sent_bytes_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """One GPU as NVML shows it."""

    index: int
    uuid: str
    name: str
    pci_address: str
    utilization_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_c: int | None
    power_w: float | None
    power_limit_w: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    throttle_reasons: tuple[str, ...] | None
    ecc_uncorrected_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSample:
    """One look at a node. Rates hold for the `interval_s` before `time_unix_s`.

    `gpus` is empty on a node without GPUs; `gpus_problem` says why GPUs that are there could not be asked.
    """

    time_unix_s: float
    interval_s: float
    hostname: str
    uptime_s: float
    cpu_count: int
    cpu_used_percent: float | None
    load_1min: float
    memory_total_bytes: int
    memory_available_bytes: int
    swap_used_bytes: int
    disk_read_bytes_per_s: float | None
    disk_written_bytes_per_s: float | None
    disks: tuple[DiskSample, ...]
    nics: tuple[NicSample, ...]
    gpus: tuple[GpuSample, ...]
    gpus_problem: str | None = None

    @property
    def memory_used_bytes(self) -> int:
        """Memory that a new program could not get."""
        return self.memory_total_bytes - self.memory_available_bytes

    def network_bytes_per_s(self) -> tuple[float, float] | None:
        """(received, sent) of all interfaces together; None without any rate."""
        known = [
            (nic.received_bytes_per_s, nic.sent_bytes_per_s)
            for nic in self.nics
            if nic.received_bytes_per_s is not None and nic.sent_bytes_per_s is not None
        ]
        return (sum(row[0] for row in known), sum(row[1] for row in known)) if known else None


def to_dict(sample: NodeSample) -> dict[str, Any]:
    """The sample as JSON can hold it; from_dict is its inverse."""
    return asdict(sample)


def from_dict(document: Mapping[str, Any]) -> NodeSample:
    """The sample of a JSON object. Unknown keys are left out, so that a newer node can be shown.

    Raises SampleInvalid where a value is missing.
    """
    parts = {
        "disks": tuple(_part(DiskSample, row) for row in document.get("disks", ())),
        "nics": tuple(_part(NicSample, row) for row in document.get("nics", ())),
        "gpus": tuple(_part(GpuSample, _with_tuple(row)) for row in document.get("gpus", ())),
    }
    return _part(NodeSample, {**document, **parts})


def _with_tuple(gpu: Mapping[str, Any]) -> dict[str, Any]:
    reasons = gpu.get("throttle_reasons")
    return {**gpu, "throttle_reasons": None if reasons is None else tuple(reasons)}


def _part(kind: type[Part], values: Mapping[str, Any]) -> Part:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{key: value for key, value in values.items() if key in known})
    except TypeError as error:
        raise SampleInvalid(
            f"wanted a {kind.__name__}, found {sorted(values)}: {error}",
            "the node may run another version of kanctl: kanctl provision nodes",
        ) from error
