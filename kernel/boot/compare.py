"""Two kernels side by side, and what each boot argument bought, from boot reports. Pure; plot.py draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any

from .report import BootReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a boot report and how it is shown. Less is better unless said."""

    key: str
    label: str
    unit: str
    scale: float = 1.0
    more_is_better: bool = False


# Times are millions (or thousands) of instructions, as qemu.py explains.
METRICS = (
    Metric(key="init_ns", label="boot to init", unit="million instructions", scale=1e-6),
    Metric(key="memfree_kib", label="memory free at init", unit="MiB of 1024", scale=1 / 1024, more_is_better=True),
    Metric(key="slab_kib", label="slab at init", unit="MiB", scale=1 / 1024),
    Metric(key="tasks", label="tasks at init", unit=""),
    Metric(key="timer_ticks", label="timer interrupts to init", unit=""),
    Metric(key="cyclictest_max_ns", label="cyclictest max under load", unit="thousand instructions", scale=1e-3),
    Metric(key="cyclictest_avg_ns", label="cyclictest mean under load", unit="thousand instructions", scale=1e-3),
    Metric(key="forkexec_ns", label="300 fork + exec", unit="million instructions", scale=1e-6),
    Metric(key="write_ns", label="100 MiB written to tmpfs", unit="million instructions", scale=1e-6),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One kernel with one set of arguments: the median of several boots."""

    title: str
    runs: tuple[BootReport, ...]
    # Figures of the package, not of the boot.
    facts: Mapping[str, float]

    @property
    def report(self) -> BootReport:
        """The boots as one: every figure is the median of its own."""
        return median_report(self.runs)


def median_report(runs: Sequence[BootReport]) -> BootReport:
    """One report whose figures are the medians over several boots of the same."""
    figures: dict[str, Any] = {}
    for metric in METRICS:
        values = [value for run in runs if (value := getattr(run, metric.key)) is not None]
        figures[metric.key] = median_low(values) if values else None
    return replace(runs[0], **figures)


def spread(runs: Sequence[BootReport], key: str) -> float:
    """How far apart boots of the same are in one figure: (highest - lowest) / median; what is below it says nothing."""
    values = [value for run in runs if (value := getattr(run, key)) is not None]
    return (max(values) - min(values)) / median_low(values) if values and median_low(values) else 0.0


def table(columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows; every figure with its ratio to the first column."""
    heads = ["figure", "unit", *(column.title for column in columns)]
    rows = []
    for metric in METRICS:
        values = [getattr(column.report, metric.key) for column in columns]
        shown = [_shown(value, metric.scale, values[0]) for value in values]
        rows.append([metric.label, metric.unit, *shown])
    names = dict.fromkeys(name for column in columns for name in column.facts)
    for name in names:
        values = [column.facts.get(name) for column in columns]
        rows.append([name, "", *(_shown(value, 1.0, values[0]) for value in values)])
    rows.append(["preemption mode", "", *(column.report.preempt for column in columns)])
    return heads, rows


def effects(plain_runs: Sequence[BootReport], with_option: Mapping[str, Sequence[BootReport]]) -> list[list[str]]:
    """What each boot argument alone changed, in per cent of the plain boot: argument, then one cell a metric.

    The first row is the spread of the plain boots themselves: an effect that is not larger is none.
    """
    plain = median_report(plain_runs)
    rows = [["(spread of plain boots)", *(f"{100 * spread(plain_runs, metric.key):.1f} %" for metric in METRICS)]]
    for option, runs in with_option.items():
        report = median_report(runs)
        cells = []
        for metric in METRICS:
            before, after = getattr(plain, metric.key), getattr(report, metric.key)
            cells.append("" if not before or after is None else f"{100 * (after - before) / before:+.1f} %")
        rows.append([option, *cells])
    return rows


def _shown(value: float | None, scale: float, first: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value * scale:,.0f}" if value * scale >= 100 else f"{value * scale:.2f}".rstrip("0").rstrip(".")
    return text if not first or value == first else f"{text} ({value / first:.2f}x)"
