"""Starts a run: checks every node first, writes the run folder, then one systemd unit per node that runs torchrun.

The units belong to systemd, so the run outlives this process, the SSH connection and the controller. A start that
fails on one node is undone on the others. Local runs are local.py's.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kanctl import __version__
from kanctl.errors import KanctlError, NodeUnreachableError
from kanctl.inventory import Node

from ..remote import Remote, on_every_node
from .names import corpus_dir, run_dir, unit_name
from .place import NODE_PYTHON, Place

TORCHRUN = "/opt/kanctl/venv/bin/torchrun"
FREE_DISK_MIN_MIB = 500
# How long a checkpoint of a large model may take after a stop was asked for.
STOP_TIMEOUT_S = 180
# torchrun kills its workers 30 s after SIGTERM unless told otherwise; a little less than the unit's own limit.
STOP_ENVIRONMENT = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_TIMEOUT_S - 10)}

# Prints a port that is free now; the rendezvous takes it a second later.
_FREE_PORT = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What launch.json holds: enough for any controller to find the run again."""

    run: str
    nodes: tuple[str, ...]
    processes_per_node: tuple[int, ...]
    unit: str
    started_unix_s: float
    rendezvous: str
    kanctl_version: str = __version__
    local_pid: int | None = None
    stop_asked_unix_s: float | None = None

    @property
    def world_size(self) -> int:
        """Processes of all nodes."""
        return sum(self.processes_per_node)


def write_run_folder(place: Place, run: str, config: dict[str, object]) -> str:
    """Make a new run folder with its resolved config; gives its path. Raises KanctlError when the name is taken."""
    folder = run_dir(place.data_dir, run)
    place.run(["mkdir", "-p", f"{place.data_dir}/runs"]).require()
    if place.run(["mkdir", folder]).code != 0:
        raise KanctlError(f"{place.name} has a run of the name {run} in {folder}", "another --name, or train resume")
    place.run(["mkdir", f"{folder}/logs"]).require()
    place.write_text(f"{folder}/config.json", json.dumps(config, indent=2) + "\n")
    return folder


def read_launch(place: Place, run: str) -> Launch | None:
    """The launch record of a run, None when the run was never started."""
    text = place.read_text(f"{run_dir(place.data_dir, run)}/launch.json")
    if text is None:
        return None
    record = json.loads(text)
    return Launch(
        **{**record, "nodes": tuple(record["nodes"]), "processes_per_node": tuple(record["processes_per_node"])}
    )


def write_launch(place: Place, launch: Launch) -> None:
    """Keep the launch record in the run folder."""
    path = f"{run_dir(place.data_dir, launch.run)}/launch.json"
    place.write_text(path, json.dumps(asdict(launch), indent=2) + "\n")


def check_nodes(place: Place, nodes: Sequence[Node], corpus: str) -> None:
    """Refuse a launch that cannot work: every problem of every node at once, nothing changed."""
    manifest = f"{corpus_dir(place.data_dir, corpus)}/manifest.json"

    def problems(remote: Remote) -> list[str]:
        found = []
        if remote.run(["test", "-x", TORCHRUN]).code != 0:
            found.append(f"no {TORCHRUN} (next: kanctl provision nodes)")
        if remote.run(["test", "-w", place.data_dir]).code != 0:
            found.append(
                f"{remote.node.user} may not write in {place.data_dir} (next: mount it, or set kanctl_shared_dir)"
            )
        elif remote.run(["test", "-f", manifest]).code != 0:
            found.append(f"no corpus {corpus}: {manifest} is missing (next: kanctl train prepare --name {corpus})")
        elif _free_mib(remote, place.data_dir) < FREE_DISK_MIN_MIB:
            found.append(f"less than {FREE_DISK_MIN_MIB} MiB free in {place.data_dir} (next: delete old runs there)")
        units = remote.run(["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "kanctl-train-*"])
        found += [
            f"busy with {line.split()[0]} (next: kanctl train stop)" for line in units.stdout.splitlines() if line
        ]
        return found

    answers = on_every_node(nodes, problems)
    unreachable = [answer for answer in answers.values() if isinstance(answer, NodeUnreachableError)]
    if unreachable:
        raise NodeUnreachableError("; ".join(str(error) for error in unreachable), unreachable[0].next_step)
    found = [f"{name}: {text}" for name, texts in answers.items() if isinstance(texts, list) for text in texts]
    if found:
        raise KanctlError("the run was not started:\n  " + "\n  ".join(found))


def start_run(place: Place, nodes: Sequence[Node], run: str, corpus: str, processes: int | None) -> Launch:
    """Start the run's unit on every node, or on none. Raises KanctlError and NodeUnreachableError."""
    port = place.run([NODE_PYTHON, "-c", _FREE_PORT]).require().strip()
    launch = Launch(
        run=run,
        nodes=tuple(node.name for node in nodes),
        processes_per_node=tuple(processes or max(1, node.gpu_count) for node in nodes),
        unit=unit_name(run),
        started_unix_s=time.time(),
        rendezvous=f"{nodes[0].address}:{port}",
    )
    write_launch(place, launch)

    def start(remote: Remote) -> str | None:
        words = _unit_words(launch, remote, place.data_dir, corpus, nodes)
        answer = remote.run(words, as_root=True)
        return None if answer.code == 0 else answer.stderr.strip()

    answers = on_every_node(nodes, start)
    failed = {name: answer for name, answer in answers.items() if answer is not None}
    if failed:
        stop_units(nodes, launch)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise KanctlError(f"{run} was not started: {reasons}", f"kanctl train resume {run} once that is mended")
    return launch


def stop_units(nodes: Sequence[Node], launch: Launch) -> dict[str, str]:
    """Ask the units to end (the trainer writes a checkpoint first) and wait; per node 'stopped' or the reason."""

    def stop(remote: Remote) -> str:
        answer = remote.run(["systemctl", "stop", launch.unit], as_root=True, timeout_s=STOP_TIMEOUT_S + 30)
        not_there = "not loaded" in answer.stderr
        return "stopped" if answer.code == 0 or not_there else answer.stderr.strip()

    return {name: str(answer) for name, answer in on_every_node(nodes, stop).items()}


def unit_states(nodes: Sequence[Node], launch: Launch) -> dict[str, str]:
    """systemd's word for the unit on each node (active, inactive, failed), or why a node could not be asked."""

    def ask(remote: Remote) -> str:
        return remote.run(["systemctl", "is-active", launch.unit]).stdout.strip()

    answers = on_every_node(nodes, ask)
    return {name: "unreachable" if isinstance(answer, Exception) else answer for name, answer in answers.items()}


def _unit_words(launch: Launch, remote: Remote, data_dir: str, corpus: str, nodes: Sequence[Node]) -> list[str]:
    """The systemd-run command of one node."""
    rank = launch.nodes.index(remote.node.name)
    folder = run_dir(data_dir, launch.run)
    log = f"append:{folder}/logs/{remote.node.name}.log"
    interface = _interface_towards(remote, nodes[0] if rank else nodes[-1])
    properties = {
        "Type": "exec",
        "User": remote.node.user,
        "WorkingDirectory": folder,
        "StandardOutput": log,
        "StandardError": log,
        # Only torchrun gets the signal; it passes it on and waits for its workers.
        "KillMode": "mixed",
        "TimeoutStopSec": str(STOP_TIMEOUT_S),
        # NCCL and RDMA pin memory; the default limit of 8 MiB breaks both.
        "LimitMEMLOCK": "infinity",
    }
    environment = {
        **STOP_ENVIRONMENT,
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        "OMP_NUM_THREADS": str(_threads_per_process(remote, launch.processes_per_node[rank])),
        "PYTHONUNBUFFERED": "1",
        "TORCH_EXTENSIONS_DIR": f"/var/tmp/kanctl-torch-extensions/{launch.run}",  # noqa: S108  # a folder per run
    }
    return [
        "systemd-run",
        f"--unit={launch.unit}",
        f"--description=kanctl training {launch.run}, node {rank + 1} of {len(nodes)}",
        "--collect",
        *[f"--property={key}={value}" for key, value in properties.items()],
        *[f"--setenv={key}={value}" for key, value in environment.items()],
        TORCHRUN,
        f"--nnodes={len(nodes)}",
        f"--nproc-per-node={launch.processes_per_node[rank]}",
        f"--rdzv-id={launch.run}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={launch.rendezvous}",
        f"--rdzv-conf=is_host={str(rank == 0).lower()}",
        f"--local-addr={remote.node.address}",
        "--max-restarts=0",
        "-m",
        "--",
        "kanctl.trainer.train",
        "--run-dir",
        folder,
        "--corpus",
        corpus_dir(data_dir, corpus),
    ]


def _interface_towards(remote: Remote, other: Node) -> str:
    """The interface that carries traffic to another node. Shown by `ip route get ADDRESS`."""
    if other.name == remote.node.name:
        return "lo"
    words = remote.run(["ip", "-o", "route", "get", other.address]).require().split()
    return words[words.index("dev") + 1]


def _threads_per_process(remote: Remote, processes: int) -> int:
    """An equal share of the node's cores; torchrun's own default of 1 starves CPU training."""
    return max(1, int(remote.run(["nproc"]).require()) // processes)


def _free_mib(remote: Remote, folder: str) -> int:
    return int(remote.run(["df", "--output=avail", "-BM", folder]).require().splitlines()[-1].strip().rstrip("M"))
