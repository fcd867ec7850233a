"""What runs there are and how far they are: read from the run folders, so any controller sees the same."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kanctl.errors import BadInputError
from kanctl.inventory import Node

from .launch import Launch, read_launch, unit_states
from .local import local_state
from .names import check_name, run_dir, runs_dir
from .place import Place

# Enough for the last train and eval records of any sensible logging interval.
TAIL_LINES = 400

# The states of a run that will not go on by itself.
ENDED = frozenset({"finished", "stopped", "failed", "lost"})
# systemd's words for a unit that still has processes.
LIVE_UNITS = frozenset({"active", "activating", "deactivating"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """One run: its processes, and its progress as metrics.jsonl tells it. None: not known yet."""

    run: str
    state: str
    node_states: dict[str, str]
    step: int | None
    steps_total: int
    corpus: str
    loss_first_nats: float | None
    loss_last_nats: float | None
    val_bits_per_byte: float | None
    tokens_per_s: float | None
    last_record_age_s: float | None


def list_runs(place: Place) -> list[str]:
    """Names of all runs, newest last."""
    listing = place.run(["ls", "-1tr", runs_dir(place.data_dir)])
    return listing.stdout.split() if listing.code == 0 else []


def pick_run(place: Place, run: str | None) -> str:
    """The run asked for, else the newest. Raises BadInputError when there is none of that name."""
    runs = list_runs(place)
    if run is not None and check_name("run", run) in runs:
        return run
    if run is not None:
        near = ", ".join(runs[-5:]) or "none"
        raise BadInputError(f"no run {run} in {runs_dir(place.data_dir)}; the newest there: {near}")
    if not runs:
        raise BadInputError(f"no run yet in {runs_dir(place.data_dir)} of {place.name}", "kanctl train launch tiny")
    return runs[-1]


def read_status(place: Place, run: str) -> RunStatus:
    """Where a run stands now. A node that cannot be asked is named `unreachable`; the rest is still told."""
    folder = run_dir(place.data_dir, run)
    launch = read_launch(place, run)
    records = _read_metrics(place, folder)
    states = _node_states(place, launch)
    config = json.loads(place.read_text(f"{folder}/config.json") or "null")
    if config is None:
        raise BadInputError(f"{folder} on {place.name} has no config.json: not a run folder")
    train = [record for record in records if record["kind"] == "train"]
    evals = [record for record in records if record["kind"] == "eval"]
    return RunStatus(
        run=run,
        state=_overall_state(launch, states, records),
        node_states=states,
        step=records[-1]["step"] if records else None,
        steps_total=config["train"]["steps"],
        corpus=config["data"]["corpus"],
        loss_first_nats=train[0]["loss_nats"] if train else None,
        loss_last_nats=train[-1]["loss_nats"] if train else None,
        val_bits_per_byte=evals[-1]["val_bits_per_byte"] if evals else None,
        tokens_per_s=train[-1]["tokens_per_s"] if train else None,
        last_record_age_s=round(time.time() - records[-1]["time_unix_s"], 1) if records else None,
    )


def is_busy(status: RunStatus) -> bool:
    """Whether a process of the run is still there, on any node."""
    return any(state in LIVE_UNITS for state in status.node_states.values())


def launch_nodes(place: Place, launch: Launch) -> Sequence[Node]:
    """The nodes of a launch as today's inventory knows them. Raises BadInputError when one is gone from it."""
    known = {node.name: node for node in place.nodes}
    gone = [name for name in launch.nodes if name not in known]
    if gone:
        raise BadInputError(f"{launch.run} was started on {', '.join(gone)}, which the inventory no longer has")
    return [known[name] for name in launch.nodes]


def _node_states(place: Place, launch: Launch | None) -> dict[str, str]:
    if launch is None:
        return {}
    if not launch.nodes:
        return {place.name: local_state(launch)}
    return unit_states(launch_nodes(place, launch), launch)


def _overall_state(launch: Launch | None, states: dict[str, str], records: list[dict]) -> str:  # type: ignore[type-arg]
    """One word: not-started, starting, running, degraded, finished, stopped, failed or lost."""
    if launch is None:
        return "not-started"
    active = [state in LIVE_UNITS for state in states.values()]
    ended = bool(records) and records[-1]["kind"] == "end" and records[-1]["time_unix_s"] >= launch.started_unix_s
    if ended:
        return str(records[-1]["reason"])
    if all(active):
        fresh = records and records[-1]["time_unix_s"] >= launch.started_unix_s
        return "running" if fresh else "starting"
    if any(active):
        return "degraded"
    if launch.stop_asked_unix_s is not None:
        return "stopped"
    return "lost" if "unreachable" in states.values() else "failed"


def _read_metrics(place: Place, folder: str) -> list[dict]:  # type: ignore[type-arg]
    """The first and the last records; a torn last line is left out."""
    path = f"{folder}/metrics.jsonl"
    text = place.run(["sh", "-c", f'head -n 1 "$1"; tail -n {TAIL_LINES} "$1"', "sh", path]).stdout
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records.append(record)
    return records
