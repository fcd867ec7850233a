"""Brings a lab of machines to the state asked for, and takes it down."""

import os
import shutil
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from .. import host, image, tools
from ..errors import LabError, LabSpecInvalid
from ..model import CACHE_ROOT, STATE_ROOT, LabSpec, LabStatus, NodeStatus, check_name
from ..rootfs import remove_leftovers, require_space
from ..state import LabPaths, write_atomically
from . import login, power, qemu
from .disk_image import ensure_image
from .inventory_file import inventory_text, known_hosts_text
from .seed import seed_tar
from .state import (
    LOOPBACK,
    MachinePaths,
    MachinesRecord,
    load_record,
    machine,
    record_path,
    require_record,
    save_record,
)

Progress = Callable[[str], None]

DEFAULT_NODES = 1
# What a node's disk grows by when a kernel with its initrd is installed, and a saved state of its memory.
NODE_SPACE_MIB = 1500
# Below the range that Linux takes ports for outgoing connections from. See /proc/sys/net/ipv4/ip_local_port_range.
PORTS = range(22001, 23000)
MEMINFO = Path("/proc/meminfo")


def up(spec: LabSpec, progress: Progress) -> LabStatus:
    """Bring the lab up, or repair it. Returns once all answer over SSH. Raises LabError, MissingToolError."""
    host.require_root()
    tools.require_all(tools.MACHINE_PACKAGES)
    paths = LabPaths(name=spec.name, state_root=spec.state_root)
    with host.locked(progress), host.plain_umask(), host.explained_disk_errors(spec.state_root):
        record = _decide(spec, paths, progress)
        machines = [machine(paths, name) for name in record.ports]
        _write_lab_files(spec, paths, record, machines)
        for one in machines:
            _ensure_machine(one, record, progress)
    # Without the lock: a boot takes a minute or more, and other labs need not wait for it.
    for one in machines:
        login.wait_for_ssh(spec.name, one.name, progress=progress, state_root=spec.state_root)
    return read_status(spec.name, spec.state_root)


def down(name: str, progress: Progress, state_root: Path = STATE_ROOT, cache_root: Path = CACHE_ROOT) -> None:
    """Leave nothing of the lab, in whatever state it is; the image stays cached. Raises LabError."""
    host.require_root()
    paths = LabPaths(name=check_name(name), state_root=state_root)
    with host.locked(progress):
        remove_leftovers(cache_root)
        power.kill(power.find_pids(paths))
        if paths.folder.exists():
            shutil.rmtree(paths.folder)
    progress(f"lab {name} is gone")


def read_status(name: str, state_root: Path = STATE_ROOT) -> LabStatus:
    """The lab as it is now. Raises LabMissing. Changes nothing and needs no root."""
    paths = LabPaths(name=check_name(name), state_root=state_root)
    record = require_record(paths)
    return LabStatus(
        name=name,
        kind="machines",
        subnet="each node on a network of its own",
        inventory=paths.inventory,
        shared_dir=paths.shared,
        nodes=tuple(_read_node(machine(paths, node), record) for node in record.ports),
    )


def has_traces(paths: LabPaths) -> bool:
    """Whether the lab is one of machines, or what is left of one."""
    return record_path(paths).exists() or bool(power.find_pids(paths))


def choose_ports(before: dict[str, int], count: int, taken: Collection[int]) -> dict[str, int]:
    """A port for each of `count` nodes; the ones of `before` keep theirs. Raises LabError when none is free."""
    ports = dict(before)
    free = (port for port in PORTS if port not in taken and port not in before.values())
    for index in range(len(before) + 1, count + 1):
        port = next(free, None)
        if port is None:
            raise LabError(
                f"wanted a free port of {LOOPBACK} between {PORTS[0]} and {PORTS[-1]}, found none", "ss -ltn"
            )
        ports[f"node{index}"] = port
    return ports


def _decide(spec: LabSpec, paths: LabPaths, progress: Progress) -> MachinesRecord:
    """What the lab is to be, written down before anything is made, so that `down` and the next `up` know it."""
    if paths.record.exists():
        raise LabSpecInvalid(
            f"lab {spec.name} has containers, wanted machines", "take another --name, or kanctl lab down first"
        )
    before = load_record(paths)
    count = spec.node_count or (len(before.ports) if before else DEFAULT_NODES)
    if before and count < len(before.ports):
        raise LabSpecInvalid(
            f"lab {spec.name} has {len(before.ports)} nodes, wanted {count}: nodes are added, never taken away",
            f"kanctl lab down --name {spec.name}, then up with --nodes {count}",
        )
    _require_memory(paths, count)
    hardware = (before.hardware if before else {}) | dict(spec.hardware)
    ports = choose_ports(before.ports if before else {}, count, _ports_in_use(spec.state_root))
    if unknown := [node for node in hardware if node not in ports]:
        raise LabSpecInvalid(f"--hardware names {', '.join(unknown)}; the lab has node1 to node{count}")
    image_path = before.image if before else str(ensure_image(spec.cache_root, progress))
    record = MachinesRecord(name=spec.name, ports=ports, hardware=hardware, image=image_path)
    require_space(paths.folder.parent, NODE_SPACE_MIB * count, f"for {count} machines")
    save_record(paths, record)
    return record


def _require_memory(paths: LabPaths, count: int) -> None:
    """Raises LabError when this machine has too little memory for the machines that do not run yet."""
    missing = count - len(power.find_pids(paths))
    line = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:"))
    free_mib = int(line.split()[1]) // 1024
    wanted_mib = missing * qemu.HOST_MEMORY_MIB
    if wanted_mib > free_mib:
        raise LabError(
            f"wanted {wanted_mib} MiB of memory for {missing} machines, found {free_mib} MiB available",
            "fewer --nodes, or end what takes the memory: free -m",
        )


def _ports_in_use(state_root: Path) -> set[int]:
    """Ports that something listens on now, or that belong to a machine that is off."""
    known = [load_record(LabPaths(name=path.parent.name, state_root=state_root)) for path in _records(state_root)]
    taken = {port for record in known if record for port in record.ports.values()}
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                taken.add(port)
    return taken


def _records(state_root: Path) -> list[Path]:
    return sorted(state_root.glob("*/machines.json"))


def _write_lab_files(spec: LabSpec, paths: LabPaths, record: MachinesRecord, machines: list[MachinePaths]) -> None:
    """Keys, the machines' identities, known_hosts and the inventory."""
    image.make_lab_key(paths)
    public_keys = {record.ports[one.name]: image.make_host_key(one.node) for one in machines}
    for one in machines:
        _write_seed(one, paths)
    write_atomically(paths.known_hosts, known_hosts_text(public_keys))
    text = inventory_text(record, known_hosts=paths.known_hosts, private_key=paths.private_key)
    write_atomically(paths.inventory, text)
    for path in [*paths.private_key.parent.iterdir(), paths.private_key.parent]:
        os.chown(path, *spec.owner)


def _write_seed(one: MachinePaths, paths: LabPaths) -> None:
    if one.seed.exists():
        return
    key = one.node.folder / "ssh_host_ed25519_key"
    seed = seed_tar(
        node_name=one.name,
        guest=one.guest,
        host_key=key.read_text(),
        host_key_public=key.with_suffix(".pub").read_text(),
        login_key_public=paths.private_key.with_suffix(".pub").read_text(),
    )
    # It holds the host's private key.
    one.seed.touch(mode=0o600)
    one.seed.write_bytes(seed)


def _ensure_machine(one: MachinePaths, record: MachinesRecord, progress: Progress) -> None:
    """The machine has a disk, is on, and is not stopped by a disk of this machine that was full."""
    if not Path(record.image).is_file():
        raise LabError(
            f"{one.name}: the image {record.image} that its disk builds on is gone",
            f"kanctl lab down --name {record.name}, then up again",
        )
    if not one.disk.exists():
        partial = one.disk.with_suffix(".part")
        tools.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", record.image, "-F", "raw", str(partial)])
        partial.rename(one.disk)
    if power.find_pid(one) is None:
        progress(f"starting {one.name} ({LOOPBACK}:{record.ports[one.name]}); a boot takes one to five minutes")
        power.start(one, record)
    elif qemu.run_state(one) == "io-error":
        progress(f"{one.name} goes on where its disk could not be written")
        qemu.command(one, "cont")


def _read_node(one: MachinePaths, record: MachinesRecord) -> NodeStatus:
    pid = power.find_pid(one)
    state = "stopped" if pid is None else "running" if login.answers(record, one.name) else "starting"
    return NodeStatus(
        name=one.name,
        address=f"{LOOPBACK}:{record.ports[one.name]}",
        state=state,
        supervisor_pid=pid,
        hardware=record.hardware.get(one.name),
        console_log=one.serial_log,
    )
