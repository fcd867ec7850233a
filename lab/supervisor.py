"""One process per node: starts its container, starts it again when it reboots, and ends with it.

Runs as `python -m kanctl.lab.supervisor STATE_ROOT LAB INDEX`, detached from the command that started it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from . import cgroups, host, processes, tools
from .state import SHARED_DIR_IN_NODE, LabPaths, NodePaths

# What nspawn ends with under --keep-unit when the system inside asked for a reboot.
REBOOT_CODE = 133
STOP_PATIENCE_S = 8


def nspawn_words(node: NodePaths) -> list[str]:
    """The command that boots the node's root file system in its own network namespace."""
    return [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--boot",
        f"--directory={node.root}",
        f"--machine={node.machine}",
        f"--hostname={node.name}",
        f"--network-namespace-path=/run/netns/{node.netns}",
        f"--bind={node.lab.shared}:{SHARED_DIR_IN_NODE}",
        # nspawn gives this with a network of its own making; the node's namespace is as private as that.
        "--capability=CAP_NET_ADMIN",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=passive",
        "--kill-signal=SIGRTMIN+4",
    ]


def nspawn_environment() -> dict[str, str]:
    """The environment that makes nspawn behave the same on every kind of host."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        # systemd inside gets cgroup v2, whatever the host's systemd uses.
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        # /proc/sys stays read-only, which protects the host, except for net, which is the node's own.
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
        # /tmp on disk: a tenth of the memory is too small to unpack large packages in.
        "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
    }


class Supervisor:
    """Keeps one node's container running until it powers off, dies, or SIGTERM comes."""

    def __init__(self, node: NodePaths) -> None:
        self.node = node
        self.container: subprocess.Popen[bytes] | None = None
        self.is_stopping = False

    def run(self) -> None:
        """Start the container, again after each reboot; afterwards no process of the node is left."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGALRM, self._on_patience_over)
        bases = cgroup_bases()
        while not self.is_stopping:
            code = self._boot_once(bases)
            self._say(f"container ended with {code}")
            if code != REBOOT_CODE:
                break
        self._clear(bases)

    def _boot_once(self, bases: list[Path]) -> int:
        self._clear(bases)
        self._say("booting")
        with cgroups.entered(self.node.cgroup, bases):
            self.container = tools.start(nspawn_words(self.node), nspawn_environment())
        return self.container.wait()

    def _clear(self, bases: list[Path]) -> None:
        processes.kill_node(self.node)
        for base in bases:
            cgroups.remove(base / self.node.cgroup)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stopping = True
        if self.container is not None:
            # nspawn turns this into --kill-signal for the system inside, which shuts down in order.
            self.container.terminate()
            signal.alarm(STOP_PATIENCE_S)

    def _on_patience_over(self, number: int, frame: FrameType | None) -> None:
        if self.container is not None:
            self.container.kill()

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {self.node.machine}: {text}", flush=True)


def cgroup_bases() -> list[Path]:
    """Where nodes' cgroups are made: the unit that systemd delegated to this process, else the hierarchies' tops."""
    if not host.is_booted_with_systemd():
        return cgroups.hierarchies()
    return [cgroups.own_cgroup(hierarchy) for hierarchy in cgroups.hierarchies()]


def main() -> None:
    """Entry point; the arguments are those of processes.supervisor_words."""
    state_root, lab, index = sys.argv[1:]
    os.umask(0o022)
    Supervisor(LabPaths(name=lab, state_root=Path(state_root)).node(int(index))).run()


if __name__ == "__main__":
    main()
