"""Pure verdicts on a node by itself: disks, memory, CPU, kernel, tasks, environment, venv, GPUs."""

from .facts import FileSystem
from .finding import Status, Verdict, View, not_applicable, passed

GIB = 2**30
MIB = 2**20
DISK_FREE_WARN_PERCENT = 10.0
DISK_USED_FAIL_PERCENT = 95.0
DISK_FREE_FAIL_BYTES = 500 * MIB
INODES_WARN_PERCENT = 90.0
INODES_FAIL_PERCENT = 95.0
ZOMBIES_WARN = 1000
ZOMBIES_FAIL = 2000
# Clock sources that are read without leaving the CPU: x86's and Arm's.
FAST_CLOCKSOURCES = ("tsc", "arch_sys_counter")


def worst(states: list[Status]) -> Status:
    """The one of several that matters most."""
    order: tuple[Status, ...] = ("fail", "warn", "unknown", "pass")
    return next(status for status in order if status in states)


def file_systems(view: View) -> list[FileSystem]:
    """The root and, when it answers, the shared folder."""
    shared = view.facts.shared
    return [view.facts.root_file_system, *([shared.file_system] if shared and shared.file_system else [])]


def judge_disk_free(view: View) -> Verdict:
    """D2: room on the root and in the shared folder."""
    states = {disk: _disk_state(disk) for disk in file_systems(view)}
    status = worst(list(states.values()))
    shown = [disk for disk, state in states.items() if state == status]
    return Verdict(
        status=status,
        wanted=f"at least {DISK_FREE_WARN_PERCENT:.0f} % and {DISK_FREE_FAIL_BYTES // MIB} MiB free",
        found=", ".join(f"{_free_percent(disk):.0f} % ({disk.free_bytes / GIB:.1f} GiB) free" for disk in shown),
        where=", ".join(disk.path for disk in shown),
        next_step="" if status == "pass" else f"du -xh {shown[0].path} | sort -h | tail",
    )


def _free_percent(disk: FileSystem) -> float:
    # As df counts: what root keeps for itself is neither used nor free.
    return 100 * disk.free_bytes / max(1, disk.used_bytes + disk.free_bytes)


def _disk_state(disk: FileSystem) -> Status:
    free_percent = _free_percent(disk)
    if 100 - free_percent >= DISK_USED_FAIL_PERCENT or disk.free_bytes < DISK_FREE_FAIL_BYTES:
        return "fail"
    return "warn" if free_percent < DISK_FREE_WARN_PERCENT else "pass"


def judge_disk_inodes(view: View) -> Verdict:
    """D2: a file system can be full of files while bytes are left."""
    counted = [disk for disk in file_systems(view) if disk.inodes_total > 0]
    if not counted:
        return not_applicable("the file systems have no fixed number of inodes")
    disk = min(counted, key=lambda disk: disk.inodes_free / disk.inodes_total)
    used_percent = 100 * (1 - disk.inodes_free / disk.inodes_total)
    status: Status = "pass"
    if used_percent >= INODES_WARN_PERCENT:
        status = "fail" if used_percent >= INODES_FAIL_PERCENT else "warn"
    return Verdict(
        status=status,
        wanted=f"less than {INODES_WARN_PERCENT:.0f} % of inodes used",
        found=f"{used_percent:.0f} % used",
        where=disk.path,
        next_step="" if status == "pass" else f"du --inodes -x {disk.path} | sort -n | tail",
    )


def judge_swap(view: View) -> Verdict:
    """D1: a process that swaps stops every rank that waits for it."""
    if view.facts.is_container:
        return not_applicable("a container's swap is its host's")
    swap_gib = view.facts.swap_total_bytes / GIB
    if swap_gib == 0:
        return passed("no swap", "none")
    return Verdict(
        status="fail",
        wanted="no swap",
        found=f"{swap_gib:.1f} GiB",
        where="/proc/swaps",
        next_step="swapoff -a, and remove its line from /etc/fstab",
    )


def judge_governor(view: View) -> Verdict:
    """D4: the clock should not have to rise first when a batch arrives."""
    wanted = view.declared.cpu_governor
    found = view.facts.cpu.governors
    if view.facts.is_container:
        return not_applicable("a container's CPU governor is its host's")
    if not wanted:
        return not_applicable("node_tuning_cpu_governor is empty: left alone")
    if not found:
        return not_applicable("no cpufreq here, as on most virtual machines: the firmware or hypervisor sets the clock")
    if found == (wanted,):
        return passed(wanted, wanted)
    return Verdict(
        status="fail",
        wanted=wanted,
        found=", ".join(found),
        where="/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
        next_step="kanctl provision nodes --tags node_tuning",
    )


def judge_clocksource(view: View) -> Verdict:
    """D4: any other clock source makes every time stamp a trip out of the CPU."""
    found = view.facts.cpu.clocksource
    wanted = " or ".join(FAST_CLOCKSOURCES)
    if found in FAST_CLOCKSOURCES:
        return passed(wanted, str(found))
    if view.facts.virtualization.vm or view.facts.is_container:
        return not_applicable(f"{found or 'no clock source shown'}: the hypervisor or host chooses it")
    return Verdict(
        status="unknown" if found is None else "fail",
        wanted=wanted,
        found=found or "the kernel does not say",
        where="/sys/devices/system/clocksource/clocksource0/current_clocksource",
        next_step="dmesg | grep -i -e tsc -e clocksource: the firmware or a CPU made the TSC unstable",
    )


def judge_kernel_arguments(view: View) -> Verdict:
    """A7: a declared boot argument works only after the reboot that brings it in."""
    kernel = view.facts.kernel
    if view.facts.is_container:
        return not_applicable("a container's kernel is its host's")
    wanted = view.declared.kernel_arguments
    if wanted is None:
        wanted = kernel.provisioned_arguments
    if wanted is None:
        return not_applicable("no kernel arguments are declared")
    running = set(kernel.cmdline.split())
    missing = [argument for argument in wanted if argument not in running]
    if not missing:
        return passed(" ".join(wanted), "all of them")
    is_written = set(missing) <= set(kernel.provisioned_arguments or ())
    return Verdict(
        status="fail",
        wanted=" ".join(wanted),
        found=f"without {' '.join(missing)}",
        where="/proc/cmdline",
        next_step="reboot the node: they are written for the next boot"
        if is_written
        else "kanctl provision nodes --tags node_tuning, then reboot the node",
    )


def judge_kernel_rt(view: View) -> Verdict:
    """A7: NVIDIA's driver neither builds nor loads on a PREEMPT_RT kernel."""
    kernel = view.facts.kernel
    if not kernel.is_realtime:
        return passed("no PREEMPT_RT", kernel.release)
    has_gpus = bool(view.declared.gpu_count or view.facts.gpus.pci_count)
    return Verdict(
        status="fail" if has_gpus else "warn",
        wanted="no PREEMPT_RT: NVIDIA's driver does not load on it, and it switches huge pages off",
        found=f"{kernel.release} with PREEMPT_RT",
        where="uname -v",
        next_step="boot another kernel; preempt=full on the command line is the nearest",
    )


def judge_tasks(view: View) -> Verdict:
    """D5: stuck tasks mean a dead disk, mount or driver; zombies, a parent that does not look after its children."""
    tasks = view.facts.tasks
    states: list[Status] = ["pass"]
    if tasks.stuck:
        states.append("warn")
    if tasks.zombies > ZOMBIES_WARN:
        states.append("fail" if tasks.zombies > ZOMBIES_FAIL else "warn")
    status = worst(states)
    names = f" ({', '.join(tasks.stuck[:5])})" if tasks.stuck else ""
    return Verdict(
        status=status,
        wanted=f"no task stuck in state D, at most {ZOMBIES_WARN} zombies",
        found=f"{len(tasks.stuck)} stuck{names}, {tasks.zombies} zombies",
        where="ps -eo stat,pid,comm",
        next_step="" if status == "pass" else "cat /proc/PID/stack shows where a task waits; dmesg | tail",
    )


def judge_oom(view: View) -> Verdict:
    """Kills for lack of memory since the start; source: the kernel's counter oom_kill."""
    boot = view.facts.boot
    since = f"in the {_span(boot.uptime_s)} since the start"
    if boot.oom_kills is None and view.facts.is_container:
        return not_applicable("this container's control group keeps no count")
    if boot.oom_kills is None:
        return Verdict(
            status="unknown",
            wanted="no kill for lack of memory",
            found="the kernel keeps no count",
            where=boot.oom_source,
        )
    if boot.oom_kills == 0:
        return passed("no kill for lack of memory", f"none {since}")
    return Verdict(
        status="warn",
        wanted="no kill for lack of memory",
        found=f"{boot.oom_kills} {since}",
        where=boot.oom_source,
        next_step="journalctl -k --grep 'Out of memory|oom-kill'",
    )


def _span(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def judge_environment(view: View) -> Verdict:
    """D12: a variable for everybody that slows or breaks CUDA programs."""
    bad = [variable for variable in view.facts.bad_environment if variable.value.strip("'\"") not in ("", "0")]
    if not bad:
        return passed("no debugging or library variables for everybody", "none")
    return Verdict(
        status="fail",
        wanted="no debugging or library variables for everybody",
        found=", ".join(f"{variable.name}={variable.value}" for variable in bad),
        where=", ".join(sorted({variable.where for variable in bad})),
        next_step="set them only for the program that needs them",
    )


def judge_venv(view: View) -> Verdict:
    """The environment that trains is there, with what it needs."""
    facts = view.facts
    wanted = f"kanctl, torch and deepspeed in {facts.venv}"
    versions = {name: facts.versions.get(name) for name in ("kanctl", "torch", "deepspeed")}
    missing = [name for name, version in versions.items() if version is None]
    if facts.has_venv and not missing:
        return passed(wanted, ", ".join(f"{name} {version}" for name, version in versions.items()))
    return Verdict(
        status="fail",
        wanted=wanted,
        found=f"without {', '.join(missing)}" if facts.has_venv else "none",
        where=facts.venv,
        next_step="kanctl provision nodes",
    )


def judge_gpu_count(view: View) -> Verdict:
    """A1: declared, on the PCI bus, and seen by the driver must be the same number."""
    gpus, declared = view.facts.gpus, view.declared.gpu_count
    if view.declared.recorded_hardware:
        return not_applicable(f"recorded hardware {view.declared.recorded_hardware}: there are no GPUs to count")
    if not declared and not gpus.pci_count and not gpus.driver_count:
        return passed("no GPU", "none") if declared == 0 else not_applicable("no GPU here")
    wanted = gpus.pci_count if declared is None else declared
    driver = "does not answer" if gpus.driver_count is None else str(gpus.driver_count)
    found = f"PCI bus {gpus.pci_count}, driver {driver}"
    if wanted == gpus.pci_count == gpus.driver_count:
        return passed(f"{wanted} GPUs", found)
    if wanted == 0:
        return Verdict(
            status="warn", wanted="no GPU", found=found, where="lspci -d 10de:", next_step="declare them in kanctl_gpus"
        )
    return Verdict(
        status="fail",
        wanted=f"{wanted} GPUs",
        found=found,
        where="lspci -d 10de:; nvidia-smi -L",
        next_step=_gpu_step(wanted, gpus.pci_count, gpus.has_nvidia_smi),
    )


def _gpu_step(wanted: int, pci_count: int, has_nvidia_smi: bool) -> str:
    if pci_count < wanted:
        return "dmesg | grep -i -e xid -e 'fallen off'; a GPU that left the bus needs a power cycle of the node"
    return "nvidia-smi; dmesg | grep -i nvrm" if has_nvidia_smi else "kanctl provision nodes installs the driver"
