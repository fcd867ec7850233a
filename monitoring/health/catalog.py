"""Every host check, as data: what it is, the shell command that shows the same, its threshold and where that is from.

A new check is a row here, a pure function in judge_host.py or judge_fleet.py, and a fact in probe.py if it needs one.
"""

from collections.abc import Iterable, Sequence

from ..errors import UnknownCheck
from . import judge_fleet, judge_host
from .finding import Check, Finding, View

CHECKS: tuple[Check, ...] = (
    Check(
        id="clock-offset",
        health_id="D6",
        what="The clock agrees with the controller's",
        severity="fail",
        command="ssh NODE date +%s.%N; date +%s.%N",
        threshold="100 ms, beyond half the round trip",
        source="our own: TLS and logs bear less than a second",
        judge=judge_fleet.judge_clock_offset,
    ),
    Check(
        id="clock-sync",
        health_id="D6",
        what="A time service runs and has synchronised the clock",
        severity="fail",
        command="timedatectl; systemctl is-active chrony systemd-timesyncd",
        threshold="one active service, NTPSynchronized=yes",
        source="systemd timedatectl(1)",
        judge=judge_fleet.judge_clock_sync,
    ),
    Check(
        id="disk-free",
        health_id="D2",
        what="Root and shared folder have room",
        severity="fail",
        command="df -h / SHARED",
        threshold="warn below 10 % free; fail at 95 % used or below 500 MiB",
        source="gpud disk; imbue and deepops NHC (95 %)",
        judge=judge_host.judge_disk_free,
    ),
    Check(
        id="disk-inodes",
        health_id="D2",
        what="Root and shared folder have inodes left",
        severity="fail",
        command="df -i / SHARED",
        threshold="warn at 90 % used, fail at 95 %",
        source="as disk-free",
        judge=judge_host.judge_disk_inodes,
    ),
    Check(
        id="memory-size",
        health_id="D3",
        what="Memory is as large as declared, else as on the other nodes",
        severity="fail",
        command="grep MemTotal /proc/meminfo",
        threshold="±5 %",
        source="Azure NHC check_hw_physmem",
        judge=judge_fleet.judge_memory_size,
    ),
    Check(
        id="swap-off",
        health_id="D1",
        what="No swap",
        severity="fail",
        command="cat /proc/swaps",
        threshold="0 bytes",
        source="imbue cluster-health",
        judge=judge_host.judge_swap,
    ),
    Check(
        id="cpu-governor",
        health_id="D4",
        what="The CPU frequency governor is the declared one",
        severity="fail",
        command="cat /sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
        threshold="node_tuning_cpu_governor, performance by default",
        source="facebookresearch/gcm",
        judge=judge_host.judge_governor,
    ),
    Check(
        id="clocksource",
        health_id="D4",
        what="Time is read without leaving the CPU",
        severity="fail",
        command="cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
        threshold="tsc (x86) or arch_sys_counter (Arm)",
        source="facebookresearch/gcm",
        judge=judge_host.judge_clocksource,
    ),
    Check(
        id="kernel-arguments",
        health_id="A7",
        what="The running kernel has the declared arguments",
        severity="fail",
        command="cat /proc/cmdline /etc/kanctl/kernel-arguments",
        threshold="all of them",
        source="kernel/cmdline/PROFILE.args",
        judge=judge_host.judge_kernel_arguments,
    ),
    Check(
        id="kernel-no-rt",
        health_id="A7",
        what="The kernel is not PREEMPT_RT",
        severity="fail",
        command="cat /sys/kernel/realtime; uname -v",
        threshold="none; a warning on a node without GPUs",
        source="open-gpu-kernel-modules#1240",
        judge=judge_host.judge_kernel_rt,
    ),
    Check(
        id="tasks",
        health_id="D5",
        what="No task is stuck, and zombies are few",
        severity="fail",
        command="ps -eo stat,pid,comm | grep '^[DZ]'",
        threshold="warn: in state D for 1.6 s, or over 1000 zombies; fail: over 2000",
        source="gpud os component",
        judge=judge_host.judge_tasks,
    ),
    Check(
        id="peers-reachable",
        health_id="C6",
        what="Every other node's SSH port answers this node",
        severity="fail",
        command="nc -zw3 ADDRESS PORT",
        threshold="3 s each",
        source="our own: ranks connect to each other directly",
        judge=judge_fleet.judge_peers,
    ),
    Check(
        id="shared-writable",
        health_id="D10",
        what="The shared folder can be written, soon",
        severity="fail",
        command="time dd if=/dev/zero of=SHARED/file bs=1 count=1 conv=fsync",
        threshold="5 s",
        source="our own: a hung NFS server never answers",
        judge=judge_fleet.judge_shared_writable,
    ),
    Check(
        id="shared-same",
        health_id="D10",
        what="What one node writes there, this node reads",
        severity="fail",
        command="touch SHARED/x on one node, ls SHARED on the other",
        threshold="the files of all nodes",
        source="our own: an unmounted folder looks like an empty one",
        judge=judge_fleet.judge_shared_same,
    ),
    Check(
        id="fleet-versions",
        health_id="A5",
        what="Kernel, Python, kanctl, torch and deepspeed are the same everywhere",
        severity="fail",
        command="uname -r; /opt/kanctl/venv/bin/pip list",
        threshold="the value of most nodes",
        source="slurm-appliance check-kernels; CHS configcheck",
        judge=judge_fleet.judge_versions,
    ),
    Check(
        id="oom-kills",
        health_id="D11",
        what="Nothing was killed for lack of memory since the start",
        severity="warn",
        command="grep oom_kill /proc/vmstat; uptime",
        threshold="0",
        source="Linux mm/oom_kill.c",
        judge=judge_host.judge_oom,
    ),
    Check(
        id="environment",
        health_id="D12",
        what="Nobody set debugging or library variables for everybody",
        severity="fail",
        command="cat /etc/environment /etc/profile.d/*.sh; systemctl show-environment",
        threshold="none of those in probe.py",
        source="DCGM_FR_BAD_CUDA_ENV; gpud bad-envs",
        judge=judge_host.judge_environment,
    ),
    Check(
        id="trainer-venv",
        health_id="A5",
        what="The environment that trains is complete",
        severity="fail",
        command="/opt/kanctl/venv/bin/pip list",
        threshold="kanctl, torch, deepspeed",
        source="the role trainer",
        judge=judge_host.judge_venv,
    ),
    Check(
        id="gpu-count",
        health_id="A1",
        what="Declared GPUs = GPUs on the PCI bus = GPUs of the driver",
        severity="fail",
        command="lspci -d 10de:; nvidia-smi -L",
        threshold="equal",
        source="Azure NHC check_gpu_count; NVSentinel#684",
        judge=judge_host.judge_gpu_count,
    ),
)


def select_checks(only: Sequence[str]) -> tuple[Check, ...]:
    """The checks whose id or health id (D2 names two) is in `only`; all for an empty one. Raises UnknownCheck."""
    known = {check.id for check in CHECKS} | {check.health_id for check in CHECKS}
    wrong = sorted(set(only) - known)
    if wrong:
        raise UnknownCheck(
            f"no check is called {', '.join(wrong)}; there are {', '.join(check.id for check in CHECKS)}",
            "or a group: " + ", ".join(sorted({check.health_id for check in CHECKS})),
        )
    return tuple(check for check in CHECKS if not only or check.id in only or check.health_id in only)


def judge(views: Iterable[View], checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Every check's verdict on every node, checks within nodes in the order given."""
    findings = []
    for view in views:
        for check in checks:
            verdict = check.judge(view)
            findings.append(
                Finding(
                    node=view.node,
                    check=check.id,
                    health_id=check.health_id,
                    status=verdict.status,
                    wanted=verdict.wanted,
                    found=verdict.found,
                    where=verdict.where,
                    next_step=verdict.next_step,
                )
            )
    return findings
