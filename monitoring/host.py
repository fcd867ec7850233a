"""Reads a machine's CPU, memory, file systems, network and load with psutil; rates come from two readings.

In a container CPU, memory and disk rates are the whole host's: /proc there shows the host.
"""

# psutil has no type annotations.
# mypy: disallow-untyped-calls=False

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from .sample import DiskSample, GpuSample, NicSample, NodeSample

# port_rcv_data and port_xmit_data count 32-bit words. Source: Documentation/ABI/stable/sysfs-class-infiniband
RDMA_WORD_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReading:
    """Counters since boot and gauges of one instant; `monotonic_s` times the rates, `time_unix_s` the sample."""

    monotonic_s: float
    time_unix_s: float
    hostname: str
    uptime_s: float
    cpu_count: int
    cpu_busy_s: float
    cpu_total_s: float
    load_1min: float
    memory_total_bytes: int
    memory_available_bytes: int
    swap_used_bytes: int
    disk_read_bytes: int | None
    disk_written_bytes: int | None
    disks: tuple[DiskSample, ...]
    # Name -> (received, sent) bytes since the interface came up.
    nic_bytes: Mapping[str, tuple[int, int]]
    rdma_bytes: Mapping[str, tuple[int, int]]


def read_host(paths: Sequence[str] = ("/",), sys_root: Path = Path("/sys")) -> HostReading:
    """One reading of this machine. `paths`: the file systems to look at; one that is missing is left out."""
    cpu = psutil.cpu_times()
    idle_s = cpu.idle + cpu.iowait
    # Guest time is part of user time already; counting it twice would hide load on a virtual machine's host.
    total_s = cpu.user + cpu.nice + cpu.system + cpu.irq + cpu.softirq + cpu.steal + idle_s
    memory = psutil.virtual_memory()
    disk_io = psutil.disk_io_counters()
    return HostReading(
        monotonic_s=time.monotonic(),
        time_unix_s=time.time(),
        hostname=socket.gethostname(),
        uptime_s=time.time() - psutil.boot_time(),
        cpu_count=psutil.cpu_count() or 1,
        cpu_busy_s=total_s - idle_s,
        cpu_total_s=total_s,
        load_1min=os.getloadavg()[0],
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        swap_used_bytes=psutil.swap_memory().used,
        disk_read_bytes=disk_io.read_bytes if disk_io else None,
        disk_written_bytes=disk_io.write_bytes if disk_io else None,
        disks=tuple(_read_disk(path) for path in paths if os.path.isdir(path)),
        nic_bytes=read_nics(sys_root),
        rdma_bytes=read_rdma_ports(sys_root),
    )


def read_nics(sys_root: Path) -> dict[str, tuple[int, int]]:
    """(received, sent) bytes per interface. Shell: ip -s link.

    Only interfaces with hardware behind them, so that a bridge or bond does not count its members twice; where none
    has (a container), all but the loopback.
    """
    folders = [entry for entry in sorted(sys_root.glob("class/net/*")) if entry.name != "lo" and entry.is_dir()]
    real = [entry for entry in folders if (entry / "device").exists()] or folders
    return {
        entry.name: (_number(entry / "statistics/rx_bytes"), _number(entry / "statistics/tx_bytes")) for entry in real
    }


def read_rdma_ports(sys_root: Path) -> dict[str, tuple[int, int]]:
    """(received, sent) bytes per RDMA port, mlx5_0/1. Shell: cat /sys/class/infiniband/*/ports/1/counters/port_*."""
    ports = {}
    for folder in sorted(sys_root.glob("class/infiniband/*/ports/*/counters")):
        name = f"{folder.parts[-4]}/{folder.parts[-2]}"
        words = (_number(folder / "port_rcv_data"), _number(folder / "port_xmit_data"))
        ports[name] = (words[0] * RDMA_WORD_BYTES, words[1] * RDMA_WORD_BYTES)
    return ports


def make_sample(
    before: HostReading, after: HostReading, gpus: tuple[GpuSample, ...] = (), gpus_problem: str | None = None
) -> NodeSample:
    """The sample that two readings give; pure."""
    interval_s = after.monotonic_s - before.monotonic_s
    cpu_total_s = after.cpu_total_s - before.cpu_total_s
    busy = (after.cpu_busy_s - before.cpu_busy_s) / cpu_total_s if cpu_total_s > 0 else None
    return NodeSample(
        time_unix_s=after.time_unix_s,
        interval_s=interval_s,
        hostname=after.hostname,
        uptime_s=after.uptime_s,
        cpu_count=after.cpu_count,
        cpu_used_percent=None if busy is None else min(100.0, max(0.0, 100 * busy)),
        load_1min=after.load_1min,
        memory_total_bytes=after.memory_total_bytes,
        memory_available_bytes=after.memory_available_bytes,
        swap_used_bytes=after.swap_used_bytes,
        disk_read_bytes_per_s=rate(before.disk_read_bytes, after.disk_read_bytes, interval_s),
        disk_written_bytes_per_s=rate(before.disk_written_bytes, after.disk_written_bytes, interval_s),
        disks=after.disks,
        nics=(
            *_nic_samples(before.nic_bytes, after.nic_bytes, interval_s, is_rdma=False),
            *_nic_samples(before.rdma_bytes, after.rdma_bytes, interval_s, is_rdma=True),
        ),
        gpus=gpus,
        gpus_problem=gpus_problem,
    )


def rate(before: int | None, after: int | None, interval_s: float) -> float | None:
    """Units per second between two counter values; None where there is none, or the counter was reset between."""
    if before is None or after is None or after < before or interval_s <= 0:
        return None
    return (after - before) / interval_s


def _nic_samples(
    before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]], interval_s: float, *, is_rdma: bool
) -> list[NicSample]:
    return [
        NicSample(
            name=name,
            is_rdma=is_rdma,
            received_bytes_per_s=rate(before.get(name, (None, None))[0], received, interval_s),
            sent_bytes_per_s=rate(before.get(name, (None, None))[1], sent, interval_s),
        )
        for name, (received, sent) in after.items()
    ]


def _read_disk(path: str) -> DiskSample:
    usage = psutil.disk_usage(path)
    return DiskSample(path=path, used_bytes=usage.used, free_bytes=usage.free, total_bytes=usage.total)


def _number(file: Path) -> int:
    """A counter of sysfs; 0 where the interface vanished since it was listed."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
