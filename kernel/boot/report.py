"""What a boot test said: the console of init.sh as values, and where they break a bundle's promises. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

CYCLICTEST = re.compile(r"Min:\s*(\d+).*Avg:\s*(\d+).*Max:\s*(\d+)")
SELECTED = re.compile(r"\((\w+)\)")
# Lines of dmesg that no healthy boot has.
TROUBLE = re.compile(
    r"(WARNING: |BUG: |Oops|Call Trace:|Kernel panic|------------\[ cut here|Unknown kernel command line)"
)
# Our own words on the command line that the kernel rightly does not know, and passes on to init.
OWN_WORDS = ("kanctl.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootReport:
    """One boot. Times are instructions where the machine counts them (qemu.py)."""

    release: str
    version: str
    cmdline: tuple[str, ...]
    init_ns: int
    memtotal_kib: int
    memfree_kib: int
    slab_kib: int
    tasks: int
    preempt: str
    thp: str
    numa_balancing: str
    config_sha256: str
    timer_ticks: int
    timer_ticks_loaded: int | None = None
    forkexec_ns: int
    write_ns: int
    cyclictest_min_ns: int | None = None
    cyclictest_avg_ns: int | None = None
    cyclictest_max_ns: int | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    drivers: Mapping[str, str] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return asdict(self)


def read_report(console: str) -> BootReport:
    """The report of a console that ended with our last line."""
    values: dict[str, str] = {}
    modules: dict[str, str] = {}
    drivers: dict[str, str] = {}
    for line in console.splitlines():
        _, mark, rest = line.partition("kanctl: ")
        key, _, value = rest.partition(" ")
        if mark and key in {"module", "driver"}:
            name, _, state = value.partition(" ")
            (modules if key == "module" else drivers)[name.rpartition("/")[2]] = state
        elif mark:
            values[key.rstrip(":")] = value.strip()
    latency = CYCLICTEST.search(values.get("cyclictest", ""))
    low, mean, high = (int(text) for text in latency.groups()) if latency else (None, None, None)
    return BootReport(
        release=values["release"],
        version=values["version"],
        cmdline=tuple(values["cmdline"].split()),
        init_ns=int(values["init_ns"]),
        memtotal_kib=int(values["memtotal"]),
        memfree_kib=int(values["memfree"]),
        slab_kib=int(values["slab"]),
        tasks=int(values["tasks"]),
        preempt=preempt_mode(values.get("preempt", ""), values.get("realtime", "")),
        thp=_chosen(values.get("thp", "")),
        numa_balancing=values.get("numa_balancing", ""),
        config_sha256=values.get("config_sha256", ""),
        timer_ticks=int(values["timer_ticks"]),
        timer_ticks_loaded=int(values["timer_ticks_loaded"]) if values.get("timer_ticks_loaded") else None,
        forkexec_ns=int(values["forkexec_ns"]),
        write_ns=int(values["write_ns"]),
        cyclictest_min_ns=low,
        cyclictest_avg_ns=mean,
        cyclictest_max_ns=high,
        modules=modules,
        drivers=drivers,
        trouble=tuple(find_trouble(console)),
    )


def preempt_mode(file: str, realtime: str) -> str:
    """The running mode from /sys/kernel/debug/sched/preempt (`none voluntary (full)`), `rt`, or `unknown`."""
    if realtime == "1":
        return "rt"
    found = SELECTED.search(file)
    return found.group(1) if found else "unknown"


def find_trouble(console: str) -> list[str]:
    """The lines between the dmesg marks that no healthy boot has."""
    _, _, rest = console.partition("kanctl: dmesg begin")
    dmesg, _, _ = rest.partition("kanctl: dmesg end")
    lines = [line.strip() for line in dmesg.splitlines() if TROUBLE.search(line)]
    return [line for line in lines if not ("Unknown kernel" in line and _names_only_own_words(line))]


def _names_only_own_words(line: str) -> bool:
    words = re.findall(r"\b[\w.]+=\S+", line.partition("parameters")[2])
    return bool(words) and all(word.startswith(OWN_WORDS) for word in words)


def _chosen(text: str) -> str:
    found = re.search(r"\[(\w+)\]", text)
    return found.group(1) if found else ""


def driver_problems(drivers: Mapping[str, str]) -> list[str]:
    """Drivers that did not load although nothing but their hardware is missing here.

    A driver that looks for its device and ends with `No such device` has been linked and run. Those that need its
    symbols cannot load after it, and are taken as linked: the gate has looked for their symbols.
    """
    found = []
    has_no_device = False
    for name, state in drivers.items():
        if "No such device" in state:
            has_no_device = True
        elif state != "loaded" and not (has_no_device and "unknown symbol" in state):
            found.append(f"driver {name}: {state}")
    return found


def broken_promises(report: BootReport, manifest: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """Where a boot is not what its bundle's manifest says; empty for a good kernel."""
    found = []
    if report.release != manifest["release"]:
        found.append(f"wanted the release {manifest['release']}, found {report.release}")
    if report.config_sha256 != manifest["config_sha256"]:
        found.append(f"wanted a configuration with SHA-256 {manifest['config_sha256']}, found {report.config_sha256}")
    missing = [argument for argument in arguments if argument not in report.cmdline]
    if missing:
        found.append(f"wanted {' '.join(missing)} on the command line, found {' '.join(report.cmdline)}")
    wanted = next((text.partition("=")[2] for text in arguments if text.startswith("preempt=")), manifest["preempt"])
    if report.preempt != wanted:
        found.append(f"wanted the preemption mode {wanted}, found {report.preempt}")
    for name in manifest.get("expect_modules", []):
        state = report.modules.get(name, "not tried")
        if state != "loaded":
            found.append(f"wanted the module {name} loaded, found: {state}")
    found += [f"dmesg: {line}" for line in report.trouble]
    return found
