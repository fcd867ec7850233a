"""`kanctl-kernel`: what the role kernel_install, the boot unit and a person at the console call on a node.

Every command prints one JSON object. Exit codes: 0 done, 1 failed, 2 wrong words, 3 the gate found problems.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from . import gate, machine, store
from .loaders import Loader, LoaderError, find_loader
from .machine import State, Trial

# Only while on trial: a panic restarts the node, and what hangs becomes a panic.
# Source: Documentation/admin-guide/kernel-parameters.txt
GUARDS = (
    *("panic=10", "softlockup_panic=1", "hung_task_panic=1", "hardlockup_panic=1"),
    # systemd takes over the watchdog that the initramfs has started.
    "systemd.watchdog_sec=90",
)
DEADLINE_UNIT = "kanctl-kernel-deadline"
LAUNCHER = "/usr/local/sbin/kanctl-kernel"
MODPROBE = Path("/etc/modprobe.d/kanctl-kernel.conf")


class Refused(Exception):
    """The command cannot be carried out; the message says why."""


class Node:
    """The edge: state on disk, boot loader, units, restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = store.load(folder)
        self.boot = gate.read_boot()
        self.loader: Loader = find_loader(folder)

    def save(self, state: State) -> None:
        store.save(self.folder, state)
        self.state = state

    def carry_out(self, actions: object) -> None:
        """Do what the state machine says, in its order."""
        for action in actions if isinstance(actions, tuple) else ():
            if action == machine.ARM:
                self._arm()
            elif action == machine.DISARM:
                self._disarm()
            elif action == machine.KEEP:
                self._keep()
            elif action == machine.WAIT:
                self._start_deadline()
            elif action == machine.REBOOT and self.loader.name != "dry":
                subprocess.run(["systemctl", "--no-block", "reboot"], check=True)

    def _arm(self) -> None:
        trial = self.state.trial
        assert trial is not None
        words = (*trial.arguments, *GUARDS, f"kanctl.trial={trial.id}")
        try:
            self.loader.arm(self.state.last_good, trial.release, words)
        except LoaderError as error:
            self.save(machine.fail(self.state, f"the boot loader could not be told: {error}", self.boot))
            self.loader.disarm()
            raise
        self.save(machine.armed(self.state))

    def _disarm(self) -> None:
        self.loader.disarm()
        last = self.state.history[-1] if self.state.history else None
        if last is not None and last.kind == "install" and not last.good:
            MODPROBE.unlink(missing_ok=True)
        subprocess.run(["systemctl", "stop", f"{DEADLINE_UNIT}.timer"], capture_output=True, check=False)

    def _keep(self) -> None:
        trial = self.state.trial
        assert trial is not None
        # New arguments become permanent in the file of the role node_tuning; the kernel is the same.
        self.loader.keep(trial.release)
        subprocess.run(["systemctl", "stop", f"{DEADLINE_UNIT}.timer"], capture_output=True, check=False)
        self.save(machine.promoted(self.state, self.boot))

    def _start_deadline(self) -> None:
        trial = self.state.trial
        assert trial is not None
        words = ["systemd-run", f"--unit={DEADLINE_UNIT}", f"--on-active={trial.timeout_s}", LAUNCHER, "deadline"]
        subprocess.run(words, capture_output=True, check=True)


def status(node: Node, _words: argparse.Namespace) -> dict[str, object]:
    """The state as it is."""
    return {"running": node.boot.release, "loader": node.loader.name, **asdict(node.state)}


def preflight(node: Node, words: argparse.Namespace) -> dict[str, object]:
    """Whether a trial could begin here: `problems` is empty, or says what is in the way."""
    found = node.loader.problems()
    if node.state.trial is not None:
        found.append(f"{node.state.trial.release} is on trial since {node.state.trial.started_unix_s}")
    if node.loader.name != "dry":
        release = node.boot.release
        files = [Path(f"/boot/vmlinuz-{release}"), Path(f"/lib/modules/{release}")]
        found += [
            f"the running kernel could not be come back to: {path} is gone" for path in files if not path.exists()
        ]
    audit = subprocess.run(["dpkg", "--audit"], capture_output=True, text=True, check=False).stdout.strip()
    if audit:
        found.append("dpkg has packages half installed: dpkg --configure -a")
    for folder, wanted_bytes in (("/boot", words.boot_bytes), ("/", words.root_bytes)):
        usage = shutil.disk_usage(folder)
        if usage.free < wanted_bytes:
            found.append(f"wanted {wanted_bytes / 1e6:.0f} MB free on {folder}, found {usage.free / 1e6:.0f} MB")
    return {"loader": node.loader.name, "running": node.boot.release, "problems": found}


def pin(node: Node, _words: argparse.Namespace) -> dict[str, object]:
    """Make the running kernel the default, before a new one is installed and its package asks for the menu anew."""
    if node.state.trial is not None:
        raise Refused(f"{node.state.trial.release} is on trial; nothing else can be installed")
    changed = node.state.last_good != node.boot.release
    if changed:
        node.loader.keep(node.boot.release)
        node.save(replace(node.state, last_good=node.boot.release))
    return {"changed": changed, "default": node.boot.release}


def begin(node: Node, words: argparse.Namespace) -> dict[str, object]:
    """Put a kernel, or arguments for the running one, on trial. The same trial a second time changes nothing."""
    row = json.loads(words.trial)
    trial = Trial(
        id=f"{int(time.time()):x}",
        kind=row["kind"],
        release=row["release"],
        armed_boot_id=node.boot.boot_id,
        started_unix_s=int(time.time()),
        timeout_s=int(row["timeout_s"]),
        config_sha256=row.get("config_sha256", ""),
        arguments=tuple(row.get("arguments", [])),
        profile=row.get("profile", ""),
        devices=tuple(line for line in gate.read_devices() if line.split(" ")[1] not in row.get("may_lose", [])),
        failed_units=gate.read_failed_units(),
    )
    current = node.state.trial
    if current is not None and (current.kind, current.release, current.arguments) == (
        trial.kind,
        trial.release,
        trial.arguments,
    ):
        return {"changed": False, "trial": current.id}
    if current is not None:
        raise Refused(f"{current.release} is on trial already; promote it, or restart the node to end it")
    state, actions = machine.begin(node.state, trial, node.boot)
    node.save(state)
    node.carry_out(actions)
    return {"changed": True, "trial": trial.id}


def boot(node: Node, _words: argparse.Namespace) -> dict[str, object]:
    """Called at every boot: notice a trial that runs, or one that failed."""
    state, actions = machine.on_boot(node.state, node.boot)
    if state != node.state:
        node.save(state)
    node.carry_out(actions)
    return {"phase": node.state.trial.phase if node.state.trial else None}


def judge(node: Node, _words: argparse.Namespace) -> dict[str, object]:
    """The gate: `problems` is empty for a kernel that may be promoted. Changes nothing."""
    trial = node.state.trial
    if trial is None:
        last = node.state.history[-1] if node.state.history else None
        return {"trial": None, "problems": [last.reason] if last and not last.good else [], "last": _row(last)}
    if trial.phase not in {"booted", "promoting"} and node.loader.name != "dry":
        return {"trial": trial.id, "problems": ["the node was not restarted since the trial was prepared"]}
    seen = node.boot
    if node.loader.name == "dry":
        # The host's kernel runs: what a trial would have started is taken as started.
        seen = replace(seen, release=trial.release, arguments=(*seen.arguments, *trial.arguments))
    config = trial.config_sha256 if node.loader.name == "dry" else gate.config_sha256(seen.release)
    found = gate.problems(trial, seen, gate.read_devices(), gate.read_failed_units(), config)
    return {"trial": trial.id, "problems": found}


def reject(node: Node, words: argparse.Namespace) -> dict[str, object]:
    """End the trial with a reason and restart into the last good kernel."""
    state, actions = machine.on_gate(node.state, node.boot, [words.reason])
    if state == node.state:
        return {"changed": False}
    node.save(state)
    node.carry_out(actions)
    return {"changed": True}


def promote(node: Node, words: argparse.Namespace) -> dict[str, object]:
    """Judge once more, then keep the kernel. Nothing on trial: nothing changes."""
    if node.state.trial is None:
        return {"changed": False, "default": node.state.last_good}
    kind, profile = node.state.trial.kind, node.state.trial.profile
    found = judge(node, words)["problems"]
    if found:
        raise Refused("; ".join(map(str, found)) if isinstance(found, list) else str(found))
    if node.state.trial.phase == "armed" and node.loader.name == "dry":
        node.save(replace(node.state, trial=replace(node.state.trial, phase="booted")))
    state, actions = machine.promote(node.state)
    node.save(state)
    node.carry_out(actions)
    return {"changed": True, "default": node.state.last_good, "kind": kind, "profile": profile}


def deadline(node: Node, _words: argparse.Namespace) -> dict[str, object]:
    """Called by the timer of a trial: nobody promoted it."""
    state, actions = machine.on_deadline(node.state, node.boot)
    if state != node.state:
        node.save(state)
    node.carry_out(actions)
    return {"ended": bool(actions)}


def audit(_node: Node, words: argparse.Namespace) -> dict[str, object]:
    """Whether a kernel's initramfs has the drivers that this node boots from and is reached through."""
    image = Path(f"/boot/initrd.img-{words.release}")
    if not image.is_file():
        return {"problems": [f"wanted {image}, found none: update-initramfs -c -k {words.release}"]}
    listing = subprocess.run(["lsinitramfs", str(image)], capture_output=True, text=True, check=True).stdout
    modules = Path(f"/lib/modules/{words.release}")
    builtin, shipped = ((modules / name).read_text() for name in ("modules.builtin", "modules.order"))
    found = [
        f"the initramfs lacks {module}, which drives the root disk"
        for module in gate.missing_drivers(gate.root_drivers(), listing, builtin)
    ]
    # A NIC may be driven from the root disk as well; most initramfs hold its driver, small ones do not.
    found += [
        f"the kernel lacks {module}, which drives the network"
        for module in gate.missing_drivers(gate.nic_drivers(), listing, builtin, shipped)
    ]
    return {"problems": found}


def prune(node: Node, words: argparse.Namespace) -> dict[str, object]:
    """Which kernels of ours may go, oldest first; with --remove they go."""
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", "linux-image-*-kanctl-*"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    ours = [line.split()[0].removeprefix("linux-image-") for line in listing.splitlines() if len(line.split()) == 2]
    boots = {release: Path(f"/boot/vmlinuz-{release}") for release in ours}
    installed = sorted((release for release in ours if boots[release].exists()), key=lambda r: boots[r].stat().st_mtime)
    going = machine.prunable(installed, ours, node.state, node.boot.release, words.keep)
    if words.remove and going:
        names = [f"linux-image-{release}" for release in going]
        subprocess.run(["apt-get", "purge", "-y", *names], check=True, capture_output=True)
    return {"changed": bool(going), "kernels": going}


def _row(verdict: object) -> object:
    return asdict(verdict) if verdict is not None else None  # type: ignore[call-overload]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="kanctl-kernel", description="Trials of kernels on this node.")
    top.add_argument("--state", type=Path, default=store.FOLDER)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("status").set_defaults(call=status)
    early = verbs.add_parser("preflight")
    early.add_argument("--boot-bytes", type=int, default=0)
    early.add_argument("--root-bytes", type=int, default=0)
    early.set_defaults(call=preflight)
    verbs.add_parser("pin").set_defaults(call=pin)
    start = verbs.add_parser("begin")
    start.add_argument("--trial", required=True, help="JSON: kind, release, timeout_s, arguments, config_sha256")
    start.set_defaults(call=begin)
    verbs.add_parser("boot").set_defaults(call=boot)
    verbs.add_parser("gate").set_defaults(call=judge)
    verbs.add_parser("promote").set_defaults(call=promote)
    verbs.add_parser("deadline").set_defaults(call=deadline)
    look = verbs.add_parser("audit")
    look.add_argument("release")
    look.set_defaults(call=audit)
    no = verbs.add_parser("reject")
    no.add_argument("reason")
    no.set_defaults(call=reject)
    old = verbs.add_parser("prune")
    old.add_argument("--keep", type=int, default=2)
    old.add_argument("--remove", action="store_true")
    old.set_defaults(call=prune)
    return top


def main() -> int:
    """Run one command."""
    words = parser().parse_args()
    try:
        answer = words.call(Node(words.state), words)
    except (Refused, LoaderError, store.StateDamaged, OSError, subprocess.CalledProcessError) as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps(answer))
    return 3 if answer.get("problems") else 0


if __name__ == "__main__":
    sys.exit(main())
