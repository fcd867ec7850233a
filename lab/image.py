"""The files that a lab puts into its nodes: one layer that all share, and a few files of each node's own."""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from . import tools
from .errors import LabError
from .state import LabPaths, NodePaths, write_atomically

NODE_FILES = Path(__file__).parent / "node_files"
# Units that have no work in a node and would cost time, hold apt's lock, or fail and make systemd report degraded.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@.service",
    "networking.service",  # The address comes from outside.
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "tmp.mount",  # /tmp lies on disk: unpacking large packages in memory would starve the other nodes.
)
ENABLED_UNIT = "kanctl-lab-kernel-view.service"
PROC_SYS = Path("/proc/sys")
# Folders copied whole, and single keys of folders that also hold what belongs to the container.
SYSCTL_FOLDERS = ("vm", "net/core")
SYSCTL_KEYS = (
    "fs/aio-max-nr",
    "fs/file-max",
    "fs/nr_open",
    "fs/pipe-max-size",
    "kernel/dmesg_restrict",
    "kernel/hung_task_panic",
    "kernel/hung_task_timeout_secs",
    "kernel/hung_task_warnings",
    "kernel/kptr_restrict",
    "kernel/nmi_watchdog",
    "kernel/numa_balancing",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/perf_event_max_sample_rate",
    "kernel/perf_event_paranoid",
    "kernel/pid_max",
    "kernel/printk",
    "kernel/randomize_va_space",
    "kernel/sched_autogroup_enabled",
    "kernel/sched_rt_runtime_us",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/softlockup_panic",
    "kernel/soft_watchdog",
    "kernel/sysrq",
    "kernel/threads-max",
    "kernel/timer_migration",
    "kernel/unprivileged_bpf_disabled",
    "kernel/watchdog",
    "kernel/watchdog_thresh",
)


def make_image(paths: LabPaths) -> None:
    """Write the shared layer anew: units, sshd's settings, the key that opens the nodes, the kernel's settings."""
    if paths.image.exists():
        shutil.rmtree(paths.image)
    shutil.copytree(NODE_FILES, paths.image, copy_function=shutil.copyfile)
    (paths.image / "usr/lib/kanctl-lab/mount-kernel-view").chmod(0o755)
    units = paths.image / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (units / unit).symlink_to("/dev/null")
    (units / "sysinit.target.wants").mkdir()
    (units / "sysinit.target.wants" / ENABLED_UNIT).symlink_to(f"../{ENABLED_UNIT}")
    keys = paths.image / "root/.ssh/authorized_keys"
    write_atomically(keys, paths.private_key.with_suffix(".pub").read_text(), mode=0o600)
    keys.parent.chmod(0o700)
    keys.parent.parent.chmod(0o700)
    (paths.image / "srv/kanctl").mkdir(parents=True)
    _copy_sysctls(paths.image / "usr/lib/kanctl-lab/kernel-view")


def make_lab_key(paths: LabPaths) -> None:
    """The SSH key that opens every node of the lab; kept when it is there."""
    paths.private_key.parent.mkdir(parents=True, exist_ok=True)
    paths.private_key.parent.chmod(0o700)
    _make_key(paths.private_key, f"kanctl lab {paths.name}")


def make_host_key(node: NodePaths) -> str:
    """The node's SSH host key, kept outside its root file system so that it outlives it. Returns the public half."""
    key = node.folder / "ssh_host_ed25519_key"
    key.parent.mkdir(parents=True, exist_ok=True)
    _make_key(key, node.machine)
    return key.with_suffix(".pub").read_text()


def write_node_files(node: NodePaths, addresses: Mapping[str, str]) -> None:
    """Write the node's own files into its mounted root before it starts; its name and its id stay what they were."""
    etc = node.root / "etc"
    key = node.folder / "ssh_host_ed25519_key"
    write_atomically(etc / "ssh/ssh_host_ed25519_key", key.read_text(), mode=0o600)
    write_atomically(etc / "ssh/ssh_host_ed25519_key.pub", key.with_suffix(".pub").read_text())
    write_atomically(etc / "resolv.conf", read_resolv_conf())
    if not (etc / "kanctl-lab").exists():
        write_atomically(etc / "hostname", f"{node.name}\n")
        write_atomically(etc / "machine-id", f"{uuid.uuid4().hex}\n", mode=0o444)
        write_atomically(etc / "kanctl-lab", f"{node.machine}\n")
    add_hosts(etc / "hosts", addresses)


def add_hosts(hosts: Path, addresses: Mapping[str, str]) -> None:
    """Append the nodes that the file does not name yet."""
    text = hosts.read_text() if hosts.exists() else "127.0.0.1 localhost\n"
    missing = [f"{address} {name}\n" for name, address in addresses.items() if f"{address} {name}\n" not in text]
    if missing:
        write_atomically(hosts, text + "".join(missing))


def read_resolv_conf(
    candidates: tuple[Path, ...] = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")),
) -> str:
    """The host's name servers as a node can reach them. Raises LabError when they all listen on loopback only."""
    for path in candidates:
        text = path.read_text() if path.is_file() else ""
        servers = [
            line.split()[1] for line in text.splitlines() if line.startswith("nameserver") and len(line.split()) > 1
        ]
        if any(not server.startswith("127.") and server != "::1" for server in servers):
            return text
    raise LabError(
        f"wanted a name server that nodes can reach, found only loopback ones in {candidates[0]}",
        f"name one in {candidates[-1]} or {candidates[0]}",
    )


def _make_key(path: Path, comment: str) -> None:
    if path.is_file() and path.with_suffix(".pub").is_file():
        return
    path.unlink(missing_ok=True)
    tools.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def _copy_sysctls(target: Path) -> None:
    keys = [PROC_SYS / key for key in SYSCTL_KEYS]
    for folder in SYSCTL_FOLDERS:
        keys += [path for path in sorted((PROC_SYS / folder).iterdir()) if path.is_file()]
    for key in keys:
        if key.is_file():
            copy = target / key.relative_to(PROC_SYS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_read_sysctl(key))


def _read_sysctl(key: Path) -> str:
    if not os.stat(key).st_mode & 0o400:
        return ""  # Write-only keys such as vm.drop_caches.
    try:
        return key.read_text()
    except OSError:
        return ""  # Some keys refuse to be read on some machines; the node then sees an empty one.
