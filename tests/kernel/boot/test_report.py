"""A boot test's console as values, and where it breaks the promises of a manifest."""

import pytest

from kanctl.kernel.boot.compare import Column, effects, median_report, table
from kanctl.kernel.boot.report import broken_promises, driver_problems, find_trouble, preempt_mode, read_report

RELEASE = "6.12.117-kanctl-lab-1a2b3c"
CONSOLE = f"""[    0.1] something of the kernel
kanctl: init_ns 590123456
kanctl: release {RELEASE}
kanctl: version #1 SMP PREEMPT_DYNAMIC @0
kanctl: cmdline console=ttyS0 panic=-1 quiet preempt=full
kanctl: memtotal: 1016548
kanctl: memfree: 1003260
kanctl: slab: 2404
kanctl: preempt none voluntary (full) lazy
kanctl: realtime
kanctl: thp always [madvise] never
kanctl: numa_balancing 0
kanctl: tasks 33
kanctl: config_sha256 abc
kanctl: timer_ticks 102
kanctl: forkexec_ns 232000000
kanctl: write_ns 189000000
kanctl: module nvme loaded
kanctl: module ghost failed modprobe: module ghost not found
kanctl: driver /drivers/nvidia.ko failed insmod: No such device
kanctl: cyclictest T: 0 (  457) P:80 I:1000 C:   1000 Min:   2707 Act:    2800 Avg:    2879 Max:    6357
kanctl: timer_ticks_loaded 900
kanctl: dmesg begin
[    0.000000] Linux version 6.12.117
[    0.100000] Unknown kernel command line parameters "kanctl.trial=5", will be passed to user space.
kanctl: dmesg end
kanctl: done
"""
MANIFEST = {"release": RELEASE, "config_sha256": "abc", "preempt": "full", "expect_modules": ["nvme"]}


def console(**changes):
    text = CONSOLE
    for key, value in changes.items():
        text = "\n".join(
            f"kanctl: {key} {value}" if line.startswith(f"kanctl: {key} ") else line for line in text.splitlines()
        )
    return text


def test_a_console_is_read():
    report = read_report(CONSOLE)
    assert report.init_ns == 590123456
    assert (report.memtotal_kib, report.memfree_kib, report.slab_kib) == (1016548, 1003260, 2404)
    assert report.preempt == "full"
    assert report.thp == "madvise"
    assert report.cyclictest_max_ns == 6357
    assert report.timer_ticks_loaded == 900
    assert report.modules == {"nvme": "loaded", "ghost": "failed modprobe: module ghost not found"}
    assert report.drivers == {"nvidia.ko": "failed insmod: No such device"}
    assert report.trouble == ()


def test_a_good_kernel_breaks_no_promise():
    assert broken_promises(read_report(CONSOLE), MANIFEST, ["preempt=full"]) == []


@pytest.mark.parametrize(
    ("changes", "manifest", "arguments", "said"),
    [
        ({"release": "6.12.117-other"}, {}, [], "wanted the release"),
        ({"config_sha256": "def"}, {}, [], "configuration with SHA-256 abc, found def"),
        ({}, {}, ["iommu=pt"], "wanted iommu=pt on the command line"),
        ({"preempt": "(none) voluntary full"}, {}, [], "preemption mode full, found none"),
        ({}, {}, ["preempt=lazy"], "preemption mode lazy, found full"),
        ({}, {"expect_modules": ["ghost"]}, [], "module ghost loaded, found: failed"),
        ({}, {"expect_modules": ["absent"]}, [], "module absent loaded, found: not tried"),
    ],
)
def test_each_broken_promise_is_named(changes, manifest, arguments, said):
    found = broken_promises(read_report(console(**changes)), {**MANIFEST, **manifest}, arguments)
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 0 PID: 1 at mm/slub.c:1 x",
        "BUG: kernel NULL pointer dereference",
        "Kernel panic - not syncing",
        'Unknown kernel command line parameters "nohz_ful=1", will be passed to user space.',
    ],
)
def test_trouble_in_dmesg_is_found(line):
    text = CONSOLE.replace("[    0.000000] Linux version", f"[    0.05] {line}\n[    0.000000] Linux version")
    assert [line in found for found in find_trouble(text)] == [True]


def test_words_outside_dmesg_are_no_trouble():
    assert find_trouble("WARNING: of QEMU itself\n" + CONSOLE) == []


@pytest.mark.parametrize(
    ("file", "realtime", "mode"),
    [("none (voluntary) full", "", "voluntary"), ("full (lazy) laziest", "1", "rt"), ("", "", "unknown")],
)
def test_the_preemption_mode_is_read_or_called_unknown(file, realtime, mode):
    assert preempt_mode(file, realtime) == mode


@pytest.mark.parametrize(
    ("drivers", "count"),
    [
        ({"nvidia.ko": "loaded", "gdrdrv.ko": "loaded"}, 0),
        ({"nvidia.ko": "failed insmod: No such device", "nvidia-uvm.ko": "failed: unknown symbol in module"}, 0),
        ({"nvidia-uvm.ko": "failed: unknown symbol in module"}, 1),
        ({"nvidia.ko": "failed: Invalid module format"}, 1),
    ],
)
def test_a_driver_without_its_hardware_is_no_problem_and_one_that_does_not_link_is(drivers, count):
    assert len(driver_problems(drivers)) == count


def test_a_comparison_shows_every_figure_with_its_ratio():
    stock = read_report(console(init_ns="2000000000"))
    ours = read_report(console(init_ns="500000000"))
    columns = [
        Column(title="stock", runs=(stock,), facts={"modules": 4230}),
        Column(title="ours", runs=(ours,), facts={"modules": 423}),
    ]
    heads, rows = table(columns)
    assert heads == ["figure", "unit", "stock", "ours"]
    figures = {row[0]: row[2:] for row in rows}
    assert figures["boot to init"] == ["2,000", "500 (0.25x)"]
    assert figures["modules"] == ["4,230", "423 (0.10x)"]
    assert figures["preemption mode"] == ["full", "full"]


def test_an_effect_is_given_in_per_cent_of_the_plain_boot():
    plain = [read_report(console(forkexec_ns=text)) for text in ("100", "95", "110")]
    noise, row = effects(plain, {"init_on_alloc=0": [read_report(console(forkexec_ns="80"))]})
    assert noise[0] == "(spread of plain boots)"
    assert "15.0 %" in noise
    assert row[0] == "init_on_alloc=0"
    assert "-20.0 %" in row


def test_of_several_boots_the_median_counts():
    runs = [read_report(console(forkexec_ns=text)) for text in ("100", "900", "110")]
    assert median_report(runs).forkexec_ns == 110


def test_a_kernel_without_cyclictest_leaves_its_cells_empty():
    bare = read_report("\n".join(line for line in CONSOLE.splitlines() if "cyclictest" not in line))
    _, rows = table([Column(title="bare", runs=(bare,), facts={})])
    assert ["cyclictest max under load", "thousand instructions", "-"] in rows
