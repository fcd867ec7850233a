"""Collects what the health checks want to know about this machine and prints it as one JSON document.

Standard library only, and nothing of kanctl's, because it is sent to a node's own python3 before anything of ours is
there: `python3 - '{"venv": "/opt/kanctl/venv"}' < probe.py`. It leaves one small file in the shared folder, no more.
None means "this machine does not say"; judging is not its work (judge_*.py).
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SHARED_TIMEOUT_S = 10.0
PEER_TIMEOUT_S = 3.0
TOOL_TIMEOUT_S = 10.0
# Looks at the task list; a task that waits uninterruptibly in all of them is stuck, not just busy with a disk.
TASK_LOOKS = 5
TASK_LOOK_GAP_S = 0.4
PACKAGES = ("kanctl", "torch", "deepspeed")
SYNC_UNITS = ("chrony", "chronyd", "systemd-timesyncd", "ntpsec", "ntp", "ntpd", "openntpd")
# Variables that slow or break CUDA programs when everybody gets them. Source: DCGM, DCGM_FR_BAD_CUDA_ENV, which gpud's
# bad-envs repeats; the LD_ ones swap libraries under torch, and CUDA_VISIBLE_DEVICES hides GPUs from every job.
BAD_VARIABLES = (
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
    "NSIGHT_CUDA_DEBUGGER",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "CUDA_AUTO_BOOST",
    "CUDA_ENABLE_COREDUMP_ON_EXCEPTION",
    "CUDA_COREDUMP_FILE",
    "CUDA_DEVICE_WAITS_ON_EXCEPTION",
    "CUDA_PROFILE",
    "COMPUTE_PROFILE",
    "OPENCL_PROFILE",
)
ENVIRONMENT_FILES = ("/etc/environment", "/etc/profile", "/etc/bash.bashrc", "/etc/profile.d/*.sh")


def read(path: str) -> str | None:
    """A file's text without the newline at its end; None where it is missing or may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def tool(words: list[str]) -> tuple[int, str] | None:
    """(exit status, stdout) of a command; None when it is missing or hangs. A hung one is not waited for."""
    if shutil.which(words[0]) is None:
        return None
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        stdout, _ = process.communicate(timeout=TOOL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return process.returncode, stdout.decode(errors="replace").strip()


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work()` gives, from a child process, so that a hung mount cannot hang this one; None when too late."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, json.dumps(work()).encode())
        finally:
            # Whatever happened, the child must not go on as a second probe.
            os._exit(0)
    os.close(writer)
    chunks: list[bytes] = []
    deadline = time.monotonic() + seconds
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(reader, 65536)
        if not chunk:
            os.waitpid(child, 0)
            return json.loads(b"".join(chunks)) if chunks else None
        chunks.append(chunk)
    # A task that a dead server holds cannot be killed; it ends when the server answers.
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return None


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    rows = re.findall(r"^(\w+):\s+(\d+) kB", read("/proc/meminfo") or "", re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in rows}


def file_system(path: str) -> dict[str, Any] | None:
    """Sizes and inodes of the file system at `path`; None when there is no such folder."""
    if not os.path.isdir(path):
        return None
    stat = os.statvfs(path)
    return {
        "path": path,
        "total_bytes": stat.f_blocks * stat.f_frsize,
        "free_bytes": stat.f_bavail * stat.f_frsize,
        "used_bytes": (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
        "inodes_total": stat.f_files,
        "inodes_free": stat.f_favail,
    }


def virtualization() -> dict[str, str]:
    """{"container": name, "vm": name}; empty text for none. Shell: systemd-detect-virt --container; ... --vm."""
    found = {}
    for kind in ("container", "vm"):
        answer = tool(["systemd-detect-virt", "--" + kind])
        found[kind] = "" if answer is None or answer[1] == "none" else answer[1]
    if not found["container"]:
        found["container"] = read("/run/systemd/container") or ""
    return found


def clock_sync() -> dict[str, Any]:
    """Which time services run and whether the kernel's clock is synchronised. Shell: timedatectl."""
    services = [unit for unit in SYNC_UNITS if (tool(["systemctl", "is-active", unit]) or (1,))[0] == 0]
    answer = tool(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    synchronised = None if answer is None or answer[0] != 0 else answer[1] == "yes"
    return {"services": services, "is_synchronised": synchronised}


def cpu() -> dict[str, Any]:
    """Frequency governors in use and the clock source. Shell: cpupower frequency-info."""
    governors = {read(path) for path in glob.glob("/sys/devices/system/cpu/cpufreq/policy*/scaling_governor")}
    return {
        "count": os.cpu_count(),
        "governors": sorted(governor for governor in governors if governor),
        "clocksource": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }


def kernel() -> dict[str, Any]:
    """Release, command line and whether it is a PREEMPT_RT kernel; the arguments that provisioning wrote down."""
    arguments = read("/etc/kanctl/kernel-arguments")
    return {
        "release": platform.release(),
        "cmdline": read("/proc/cmdline"),
        "is_realtime": read("/sys/kernel/realtime") == "1" or "PREEMPT_RT" in platform.version(),
        "provisioned_arguments": None if arguments is None else arguments.split(),
    }


def tasks() -> tuple[int, dict[str, str]]:
    """(zombies, {pid:start: name} of those that wait uninterruptibly) at this moment. Shell: ps -eo stat,pid,comm."""
    zombies = 0
    waiting = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        text = read(path)
        if text:
            name, _, rest = text.partition("(")[2].rpartition(")")
            words = rest.split()
            zombies += words[0] == "Z"
            if words[0] == "D":
                waiting[path.split("/")[2] + ":" + words[19]] = name
    return zombies, waiting


def stuck_tasks() -> dict[str, Any]:
    """Zombies, and the tasks that wait uninterruptibly all the time that this looks."""
    zombies, stuck = tasks()
    for _ in range(TASK_LOOKS - 1):
        if not stuck:
            break
        time.sleep(TASK_LOOK_GAP_S)
        now = tasks()[1]
        stuck = {key: name for key, name in stuck.items() if key in now}
    return {"zombies": zombies, "stuck": [key.split(":")[0] + " " + name for key, name in sorted(stuck.items())]}


def boot(container: str) -> dict[str, Any]:
    """Seconds since this machine (this container) was started, and kills for lack of memory since then."""
    pid1 = (read("/proc/1/stat") or "").rpartition(")")[2].split()
    started_s = int(pid1[19]) / os.sysconf("SC_CLK_TCK") if pid1 else 0.0
    # A container's own count is its control group's; the kernel's is the whole host's.
    source = "/sys/fs/cgroup/memory.events" if container else "/proc/vmstat"
    found = re.search(r"^oom_kill (\d+)", read(source) or "", re.MULTILINE)
    return {
        "uptime_s": float((read("/proc/uptime") or "0").split()[0]) - started_s,
        "oom_kills": int(found.group(1)) if found else None,
        "oom_source": source,
    }


def bad_environment() -> list[dict[str, str]]:
    """[{name, value, where}] of variables that every login gets. Shell: grep NAME /etc/environment."""
    found = []
    for path in sorted(match for pattern in ENVIRONMENT_FILES for match in glob.glob(pattern)):
        for name, value in re.findall(r"^\s*(?:export\s+)?([A-Z0-9_]+)=(.*)$", read(path) or "", re.MULTILINE):
            found.append({"name": name, "value": value.strip(), "where": path})
    answer = tool(["systemctl", "show-environment"])
    for line in (answer[1] if answer and answer[0] == 0 else "").splitlines():
        name, _, value = line.partition("=")
        found.append({"name": name, "value": value, "where": "systemctl show-environment"})
    return [row for row in found if row["name"] in BAD_VARIABLES]


def gpus() -> dict[str, Any]:
    """NVIDIA GPUs as the PCI bus and as the driver see them. Shell: lspci -d 10de:; nvidia-smi -L."""
    pci = 0
    for folder in glob.glob("/sys/bus/pci/devices/*"):
        is_gpu = (read(folder + "/class") or "")[:6] in ("0x0300", "0x0302")
        pci += is_gpu and read(folder + "/vendor") == "0x10de"
    listed = tool(["nvidia-smi", "-L"])
    return {
        "pci_count": pci,
        "has_nvidia_smi": shutil.which("nvidia-smi") is not None,
        "driver_count": None
        if listed is None or listed[0] != 0
        else len(re.findall(r"^GPU \d", listed[1], re.MULTILINE)),
    }


def versions(venv: str) -> dict[str, str | None]:
    """Versions of what must be the same on all nodes; read from the files of the venv, nothing is imported."""
    found = {"kernel": platform.release(), "python": read_python_version(venv)}
    for package in PACKAGES:
        names = [
            os.path.basename(path)
            for path in glob.glob(venv + "/lib/python3*/site-packages/" + package + "-*.dist-info")
        ]
        found[package] = names[0][len(package) + 1 : -len(".dist-info")] if names else None
    return found


def read_python_version(venv: str) -> str | None:
    """The Python of the venv; None without one. Shell: VENV/bin/python -V."""
    found = re.search(r"^version\s*=\s*(\S+)", read(venv + "/pyvenv.cfg") or "", re.MULTILINE)
    return found.group(1) if found else None


def reach(peer: dict[str, Any]) -> dict[str, Any]:
    """Whether a TCP connection to a peer's SSH port opens. Shell: nc -zw3 ADDRESS PORT."""
    start = time.monotonic()
    try:
        with socket.create_connection((peer["address"], peer["port"]), timeout=PEER_TIMEOUT_S):
            return {"name": peer["name"], "ms": round(1000 * (time.monotonic() - start), 1), "error": None}
    except OSError as error:
        return {"name": peer["name"], "ms": None, "error": str(error)}


def reach_all(peers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """reach() of all peers at once."""
    if not peers:
        return []
    with ThreadPoolExecutor(max_workers=min(32, len(peers))) as pool:
        return list(pool.map(reach, peers))


def write_token(folder: str, token: str, name: str) -> dict[str, Any]:
    """Write, sync and read back this node's file of the check: how long it took, and what is mounted there."""
    start = time.monotonic()
    state: dict[str, Any] = {"path": folder, "is_hung": False, "error": None, "file_system": None}
    try:
        if not os.path.isdir(folder):
            raise FileNotFoundError(2, "there is no such folder")
        os.makedirs(os.path.join(folder, token), exist_ok=True)
        path = os.path.join(folder, token, name)
        with open(path, "w") as file:
            file.write(name)
            file.flush()
            os.fsync(file.fileno())
        if read(path) != name:
            state["error"] = "another text is read back than was written"
        state["file_system"] = file_system(folder)
    except OSError as problem:
        state["error"] = problem.strerror
    return {**state, "seconds": round(time.monotonic() - start, 3)}


def shared(folder: str | None, token: str, name: str) -> dict[str, Any] | None:
    """The shared folder's state; `is_hung` when it does not answer. None where none is declared."""
    if not folder:
        return None
    hung = {"path": folder, "is_hung": True, "error": None, "file_system": None, "seconds": SHARED_TIMEOUT_S}
    return within(SHARED_TIMEOUT_S, lambda: write_token(folder, token, name)) or hung


def list_tokens(path: str) -> list[str]:
    """Names of the files of this check."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def seen_tokens(folder: str, token: str) -> list[str] | None:
    """Names of the nodes whose files of this check are visible here; None when the folder does not answer."""
    names: list[str] | None = within(SHARED_TIMEOUT_S, lambda: list_tokens(os.path.join(folder, token)))
    return names


def remove_tokens(folder: str, token: str) -> None:
    """Take the check's files away; another node may have done it already."""
    within(SHARED_TIMEOUT_S, lambda: shutil.rmtree(os.path.join(folder, token), ignore_errors=True))


def collect(request: dict[str, Any]) -> dict[str, Any]:
    """All facts. `request`: name, venv, shared_dir, token, peers ([{name, address, port}])."""
    virtual = virtualization()
    memory = meminfo()
    return {
        "hostname": socket.gethostname(),
        "virtualization": virtual,
        "clock_sync": clock_sync(),
        "root_file_system": file_system("/"),
        "shared": shared(request.get("shared_dir"), request.get("token", ".kanctl-health"), request.get("name", "me")),
        "memory_total_bytes": memory.get("MemTotal", 0),
        "swap_total_bytes": memory.get("SwapTotal", 0),
        "cpu": cpu(),
        "kernel": kernel(),
        "tasks": stuck_tasks(),
        "boot": boot(virtual["container"]),
        "peers": reach_all(request.get("peers") or []),
        "bad_environment": bad_environment(),
        "gpus": gpus(),
        "venv": request["venv"],
        "has_venv": os.access(request["venv"] + "/bin/python", os.X_OK),
        "versions": versions(request["venv"]),
    }


def main(words: list[str]) -> int:
    """`words`: one JSON object, {"do": "collect" | "seen" | "remove", ...}; without one, all facts and no peers."""
    request = {"venv": "/opt/kanctl/venv", **(json.loads(words[0]) if words else {})}
    do = request.get("do", "collect")
    answer: Any = None
    if do == "seen":
        answer = seen_tokens(request["shared_dir"], request["token"])
    elif do == "remove":
        remove_tokens(request["shared_dir"], request["token"])
    else:
        answer = collect(request)
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
