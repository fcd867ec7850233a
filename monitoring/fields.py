"""Every measured value once: its name in a sample, unit, the shell command that shows it, its name in Prometheus."""

from dataclasses import dataclass
from typing import Literal

Scope = Literal["node", "disk", "nic", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One value. `name` is the attribute of the sample class of its scope (sample.py)."""

    scope: Scope
    name: str
    unit: str
    what: str
    command: str
    prometheus: str


def _field(scope: Scope, name: str, unit: str, what: str, command: str, prometheus: str) -> Field:
    return Field(
        scope=scope, name=name, unit=unit, what=what, command=command, prometheus=f"kanctl_{scope}_{prometheus}"
    )


def _smi(field: str) -> str:
    return f"nvidia-smi --query-gpu={field} --format=csv"


# What labels each scope's values carry, from the sample class of that scope.
LABELS: dict[Scope, tuple[str, ...]] = {
    "node": (),
    "disk": ("path",),
    "nic": ("name",),
    "gpu": ("index", "uuid", "name"),
}

FIELDS: tuple[Field, ...] = (
    _field("node", "uptime_s", "s", "Time since boot", "cat /proc/uptime", "uptime_seconds"),
    _field("node", "cpu_count", "1", "Logical CPUs", "nproc --all", "cpus"),
    _field("node", "cpu_used_percent", "%", "CPU time not idle, of all CPUs together", "vmstat 1", "cpu_used_percent"),
    _field("node", "load_1min", "tasks", "Tasks running or waiting, average", "cat /proc/loadavg", "load_1min"),
    _field("node", "memory_total_bytes", "B", "Memory", "free -b", "memory_total_bytes"),
    _field(
        "node", "memory_available_bytes", "B", "Memory a new program could get",
        "free -b", "memory_available_bytes",
    ),
    _field("node", "swap_used_bytes", "B", "Swap in use", "free -b", "swap_used_bytes"),
    _field("node", "disk_read_bytes_per_s", "B/s", "Read from all disks", "iostat -d 1", "disk_read_bytes_per_second"),
    _field(
        "node", "disk_written_bytes_per_s", "B/s", "Written to all disks",
        "iostat -d 1", "disk_written_bytes_per_second",
    ),
    _field("disk", "used_bytes", "B", "Used on the file system", "df -B1 PATH", "used_bytes"),
    _field("disk", "free_bytes", "B", "Free for users without privileges", "df -B1 PATH", "free_bytes"),
    _field("disk", "total_bytes", "B", "Size of the file system", "df -B1 PATH", "total_bytes"),
    _field(
        "nic", "received_bytes_per_s", "B/s", "Received on the interface or RDMA port",
        "ip -s link", "received_bytes_per_second",
    ),
    _field(
        "nic", "sent_bytes_per_s", "B/s", "Sent on the interface or RDMA port",
        "ip -s link", "sent_bytes_per_second",
    ),
    _field(
        "gpu", "utilization_percent", "%", "Part of the time in which a kernel ran",
        _smi("utilization.gpu"), "utilization_percent",
    ),
    _field(
        "gpu", "memory_used_bytes", "B", "Memory in use, without what the driver keeps",
        _smi("memory.used"), "memory_used_bytes",
    ),
    _field("gpu", "memory_total_bytes", "B", "Memory", _smi("memory.total"), "memory_total_bytes"),
    _field("gpu", "temperature_c", "°C", "Temperature of the die", _smi("temperature.gpu"), "temperature_celsius"),
    _field("gpu", "power_w", "W", "Power drawn", _smi("power.draw"), "power_watts"),
    _field("gpu", "power_limit_w", "W", "Power limit in force", _smi("enforced.power.limit"), "power_limit_watts"),
    _field("gpu", "sm_clock_mhz", "MHz", "Clock of the multiprocessors", _smi("clocks.sm"), "sm_clock_mhz"),
    _field("gpu", "memory_clock_mhz", "MHz", "Clock of the memory", _smi("clocks.mem"), "memory_clock_mhz"),
    _field(
        "gpu", "throttle_reasons", "1 or 0", "Why the clock is lower than it could be, one series per reason",
        "nvidia-smi -q -d PERFORMANCE", "throttled",
    ),
    _field(
        "gpu", "ecc_uncorrected_count", "errors", "Memory errors beyond ECC since the driver was loaded",
        _smi("ecc.errors.uncorrected.volatile.total"), "ecc_uncorrected_errors",
    ),
)  # fmt: skip
