"""Brings a lab to the state asked for, and takes it down. `up` repairs what a crash left; `down` removes it."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import cgroups, detached, host, image, mounts, network, processes, tools
from .errors import LabError, LabSpecInvalid
from .inventory_file import inventory_text, known_hosts_text
from .model import CACHE_ROOT, DEFAULT_NODES, STATE_ROOT, LabSpec, LabStatus, check_name
from .rootfs import ensure_rootfs, remove_leftovers, require_space
from .state import (
    LabPaths,
    LabRecord,
    NodePaths,
    load_record,
    save_record,
    write_atomically,
)
from .status import addresses, answers_ssh, read_status

Progress = Callable[[str], None]

# A node's own files: what provisioning installs comes on top and fails by itself with a clear message.
NODE_SPACE_MIB = 200
# A loaded two-core machine needs ten seconds for a node; a minute of silence means that something is wrong.
START_TIMEOUT_S = 90
# Under load a program takes its time between fork and exec.
SECOND_LOOK_S = 2
NSPAWN_DIR = Path("/run/systemd/nspawn")


def up(spec: LabSpec, progress: Progress) -> LabStatus:
    """Bring the lab up, or repair it. Returns once every node answers over SSH. Raises LabError, MissingToolError."""
    host.require_ability()
    paths = LabPaths(name=spec.name, state_root=spec.state_root)
    with host.locked(progress), host.plain_umask(), host.explained_disk_errors(spec.state_root):
        record = _decide(spec, paths, progress)
        nodes = [paths.node(index) for index in range(1, record.node_count + 1)]
        require_space(paths.folder, NODE_SPACE_MIB * len(nodes), f"for {len(nodes)} nodes")
        host.prepare()
        network.ensure_bridge(paths, record.subnet)
        _warn_of_firewall(paths, progress)
        _write_lab_files(spec, paths, record, nodes)
        for node in nodes:
            _ensure_node(node, record, progress)
        _wait_for_ssh(nodes, record)
    return read_status(spec.name, spec.state_root)


def down(name: str, progress: Progress, state_root: Path = STATE_ROOT, cache_root: Path = CACHE_ROOT) -> None:
    """Leave nothing of the lab, in whatever state it is. Raises LabError when something cannot be removed."""
    host.require_root()
    tools.require_all()
    paths = LabPaths(name=check_name(name), state_root=state_root)
    with host.locked(progress):
        if not paths.folder.exists():
            progress(f"no lab named {name} in {state_root}; looking for leftovers")
        remove_leftovers(cache_root)
        stop_everything(paths)
        mounts.unmount_below(paths.folder)
        network.remove(paths)
        for base in cgroups.hierarchies():
            cgroups.remove(base / paths.cgroup)
            cgroups.remove_if_empty((base / paths.cgroup).parent)
        _remove_files(paths)
        host.restore()
    progress(f"lab {name} is gone")


def _decide(spec: LabSpec, paths: LabPaths, progress: Progress) -> LabRecord:
    """What the lab is to be, written down before anything is made, so that `down` and the next `up` know it."""
    before = load_record(paths)
    count = spec.node_count or (before.node_count if before else DEFAULT_NODES)
    if before and count < before.node_count:
        raise LabSpecInvalid(
            f"lab {spec.name} has {before.node_count} nodes, wanted {count}: nodes are added, never taken away",
            f"kanctl lab down --name {spec.name}, then up with --nodes {count}",
        )
    hardware = (before.hardware if before else {}) | dict(spec.hardware)
    if unknown := [node for node in hardware if node not in {f"node{index}" for index in range(1, count + 1)}]:
        raise LabSpecInvalid(f"--hardware names {', '.join(unknown)}; the lab has node1 to node{count}")
    # Running nodes keep the tree they started from; a lab whose cache was removed gets the present one.
    is_cached = before is not None and Path(before.rootfs).is_dir()
    rootfs = before.rootfs if before and is_cached else str(ensure_rootfs(spec.cache_root, progress))
    record = LabRecord(
        name=spec.name,
        subnet=before.subnet if before else str(network.choose_subnet(network.networks_in_use())),
        node_count=count,
        hardware=hardware,
        rootfs=rootfs,
    )
    save_record(paths, record)
    return record


def _warn_of_firewall(paths: LabPaths, progress: Progress) -> None:
    for chain in network.dropping_chains(tools.run(["nft", "-j", "list", "chains"])):
        progress(
            f"the firewall chain `{chain}` of this machine drops forwarded packets: "
            f"nodes reach the outside only once it accepts the interface {paths.bridge}"
        )


def _write_lab_files(spec: LabSpec, paths: LabPaths, record: LabRecord, nodes: list[NodePaths]) -> None:
    """Keys, the shared layer, known_hosts and the inventory."""
    image.make_lab_key(paths)
    public_keys = {addresses(record)[node.name]: image.make_host_key(node) for node in nodes}
    # The layer lies under mounted nodes and must not change while they run.
    if not any(mounts.is_mount_point(node.root) for node in nodes):
        image.make_image(paths)
    paths.shared.mkdir(parents=True, exist_ok=True)
    write_atomically(paths.known_hosts, known_hosts_text(public_keys))
    text = inventory_text(record, known_hosts=paths.known_hosts, private_key=paths.private_key)
    write_atomically(paths.inventory, text)
    for path in [*paths.private_key.parent.iterdir(), paths.private_key.parent]:
        os.chown(path, *spec.owner)


def _ensure_node(node: NodePaths, record: LabRecord, progress: Progress) -> None:
    """The node's container is running; what a crash left of it is cleared first."""
    is_alive = processes.find_supervisor(node) is not None and bool(processes.find_containers(node))
    if not is_alive:
        processes.stop(filter(None, [processes.find_supervisor(node)]), patience_s=0)
        processes.kill_node(node)
        progress(f"starting {node.name} ({addresses(record)[node.name]})")
    network.ensure_node_link(node, record.subnet)
    if not mounts.is_mount_point(node.root):
        for folder in (node.upper, node.work, node.root):
            folder.mkdir(parents=True, exist_ok=True)
        lower = [node.lab.image, Path(record.rootfs)]
        mounts.mount_overlay(lower=lower, upper=node.upper, work=node.work, target=node.root)
    if is_alive:
        image.add_hosts(node.root / "etc/hosts", addresses(record))
    else:
        image.write_node_files(node, addresses(record))
        _start_supervisor(node)


def _start_supervisor(node: NodePaths) -> None:
    detached.start(node.machine, [sys.executable, *processes.supervisor_words(node)], node.console_log)


def _wait_for_ssh(nodes: list[NodePaths], record: LabRecord) -> None:
    """Raises LabError when a node does not answer in time, or its container ended."""
    deadline = time.monotonic() + START_TIMEOUT_S
    waiting = list(nodes)
    while waiting := [node for node in waiting if not answers_ssh(addresses(record)[node.name])]:
        dead = [node for node in waiting if _is_dead(node)]
        if dead or time.monotonic() > deadline:
            late = (dead or waiting)[0]
            what = "its container ended while it started" if dead else f"no SSH within {START_TIMEOUT_S} s"
            raise LabError(
                f"{late.name}: {what}; its console said:\n{_tail(late.console_log)}", f"see {late.console_log}"
            )
        time.sleep(0.2)


def _is_dead(node: NodePaths) -> bool:
    """Whether the node's supervisor is gone, looked at twice: a process that is just being executed shows no words."""
    if processes.find_supervisor(node) is not None:
        return False
    time.sleep(SECOND_LOOK_S)
    return processes.find_supervisor(node) is None


def stop_everything(paths: LabPaths) -> None:
    """Supervisors first, which shut their nodes down in order; then whatever a crash left, found by every trace."""
    processes.stop(processes.find_supervisors(paths), patience_s=10)
    for node in _nodes_with_traces(paths):
        processes.kill_node(node)
        for folder in (NSPAWN_DIR / "propagate" / node.machine, NSPAWN_DIR / "unix-export" / node.machine):
            mounts.unmount_below(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _nodes_with_traces(paths: LabPaths) -> list[NodePaths]:
    """Every node that may have left something, also when the record is lost."""
    names = {name.rpartition("-")[2] for name in network.netns_names(paths)}
    names |= {folder.name for folder in (paths.folder / "nodes").glob("node*")}
    for base in cgroups.hierarchies():
        names |= {folder.name for folder in (base / paths.cgroup).glob("node*")}
    return [paths.node(int(name.removeprefix("node"))) for name in sorted(names)]


def _remove_files(paths: LabPaths) -> None:
    if left := mounts.list_below(paths.folder):
        raise LabError(f"{left[0]} is still mounted, so {paths.folder} was kept", f"umount {left[0]}, then again")
    if paths.folder.exists():
        shutil.rmtree(paths.folder)


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"  {line}" for line in lines[-8:]) or "  nothing"
