"""What the telemetry view shows of each node, as table rows and as a JSON document; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kanctl.monitoring.sample import GpuSample, NodeSample, to_dict

State = Literal["ok", "stale", "connecting", "no_answer"]

COLUMNS = (
    "node",
    "state",
    "CPU",
    "load",
    "memory",
    "disk /",
    "shared",
    "disk r/w",
    "net in/out",
    "GPUs",
    "age",
    "note",
)
GPU_COLUMNS = ("node", "GPU", "model", "busy", "memory", "temp", "power", "SM clock", "throttled by", "ECC")
GIB = 2**30
# A sample is stale when this many of its intervals, and a little for the way, have passed without the next one.
STALE_INTERVALS = 3
STALE_SLACK_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One node at the moment of drawing: its last sample, that sample's age, and why there is no newer one."""

    node: str
    sample: NodeSample | None = None
    age_s: float | None = None
    problem: str | None = None
    interval_s: float = 1.0

    @property
    def state(self) -> State:
        """`no_answer` with a problem, `connecting` before the first sample, `stale` when it is too old, else `ok`."""
        if self.problem is not None:
            return "no_answer"
        if self.age_s is None:
            return "connecting"
        return "stale" if self.age_s > STALE_INTERVALS * self.interval_s + STALE_SLACK_S else "ok"


def node_row(view: NodeView) -> list[str]:
    """The node's row of COLUMNS. A dead node shows no old numbers, which somebody might believe."""
    state = view.state.replace("_", " ")
    if view.sample is None or view.state == "no_answer":
        last = "never seen" if view.age_s is None else f"seen {span(view.age_s)} ago"
        empty = ["-"] * (len(COLUMNS) - 4)
        return [view.node, state, *empty, "" if view.state == "connecting" else last, view.problem or ""]
    sample = view.sample
    disks = {disk.path: disk for disk in sample.disks}
    root, shared = disks.get("/"), next((disk for path, disk in disks.items() if path != "/"), None)
    return [
        view.node,
        state,
        f"{percent(sample.cpu_used_percent)} of {sample.cpu_count}",
        f"{sample.load_1min:.1f}",
        f"{sample.memory_used_bytes / GIB:.1f}/{sample.memory_total_bytes / GIB:.0f} GiB",
        f"{size(root.free_bytes)} free" if root else "-",
        f"{size(shared.free_bytes)} free" if shared else "-",
        rates((sample.disk_read_bytes_per_s, sample.disk_written_bytes_per_s)),
        rates(sample.network_bytes_per_s() or (None, None)),
        gpu_summary(sample),
        span(view.age_s or 0.0),
        sample.gpus_problem or "",
    ]


def gpu_summary(sample: NodeSample) -> str:
    """All GPUs of a node in one cell; `none` where there are none."""
    gpus = sample.gpus
    if not gpus:
        return "not readable" if sample.gpus_problem else "none"
    busy = [gpu.utilization_percent for gpu in gpus if gpu.utilization_percent is not None]
    powers = [gpu.power_w for gpu in gpus if gpu.power_w is not None]
    parts = [f"{len(gpus)} x {gpus[0].name.removeprefix('NVIDIA ')}"]
    parts += [f"{sum(busy) / len(busy):.0f}%"] if busy else []
    parts += [f"{sum(powers):.0f} W"] if powers else []
    return " ".join(parts)


def gpu_rows(views: Sequence[NodeView]) -> list[list[str]]:
    """A row of GPU_COLUMNS per GPU of every node that answers."""
    alive = [view for view in views if view.state in ("ok", "stale") and view.sample is not None]
    return [_gpu_row(view.node, gpu) for view in alive if view.sample for gpu in view.sample.gpus]


def _gpu_row(node: str, gpu: GpuSample) -> list[str]:
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    limit = f"/{gpu.power_limit_w:.0f}" if gpu.power_limit_w is not None else ""
    return [
        node,
        str(gpu.index),
        gpu.name,
        percent(gpu.utilization_percent),
        "-" if used is None or total is None else f"{used / GIB:.1f}/{total / GIB:.0f} GiB",
        "-" if gpu.temperature_c is None else f"{gpu.temperature_c} °C",
        "-" if gpu.power_w is None else f"{gpu.power_w:.0f}{limit} W",
        "-" if gpu.sm_clock_mhz is None else f"{gpu.sm_clock_mhz} MHz",
        "-" if gpu.throttle_reasons is None else ", ".join(gpu.throttle_reasons) or "nothing",
        "-" if gpu.ecc_uncorrected_count is None else str(gpu.ecc_uncorrected_count),
    ]


def document(cluster: str, time_unix_s: float, views: Sequence[NodeView]) -> dict[str, Any]:
    """The JSON of `kanctl telemetry view --json`; docs/telemetry.md describes it."""
    return {
        "cluster": cluster,
        "time_unix_s": time_unix_s,
        "nodes": [
            {
                "node": view.node,
                "state": view.state,
                "problem": view.problem,
                "age_s": view.age_s,
                "sample": to_dict(view.sample) if view.sample else None,
            }
            for view in views
        ],
    }


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return "-" if value is None else f"{value:.0f}%"


def size(count: float) -> str:
    """Bytes as a person reads them, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes every size")


def rates(pair: tuple[float | None, float | None]) -> str:
    """Two rates, bytes per second."""
    first, second = pair
    return "-" if first is None or second is None else f"{size(first)}/{size(second)} /s"


def span(seconds: float) -> str:
    """A time as a person reads it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
