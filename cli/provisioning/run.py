"""Provisioning as one function: the playbook is run, its events kept and shown, and the end judged."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kanctl.errors import KanctlError

from ..output import print_note
from ..run_ansible import POLL_S, forget, leftovers, run_playbook
from .journal import Journal, last_run
from .report import ProvisionReport, raise_for_failures
from .state import ProvisionState, step_of
from .view import LiveView, PlainView, make_view

__all__ = ["ProvisionOptions", "ProvisionReport", "provision", "raise_for_failures"]

ENDS = {"successful": "done", "canceled": "interrupted"}
STOPPING = "stopping: no new task starts; waiting for those that run (Ctrl-C again leaves them to themselves)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionOptions:
    """What the user asked for."""

    limit: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    check: bool = False
    diff: bool = False
    # They outrank the inventory's.
    variables: Mapping[str, object] = field(default_factory=dict)


def provision(playbook: Path, inventory: Path, nodes: Sequence[str], options: ProvisionOptions) -> ProvisionReport:
    """Run the playbook on the nodes. Failures are in the report; raise_for_failures turns them into errors.

    Raises:
        KanctlError: when another run changes the nodes of this inventory, or no journal can be written.
        MissingToolError: without ansible-playbook.
    """
    if not options.check:
        meet_last_run(inventory)
    start_s = time.monotonic()
    state = ProvisionState(nodes=tuple(nodes))
    asked: dict[str, object] = {"tags": options.tags, "check": options.check}
    with Journal(inventory, state.nodes, asked) as journal:
        with make_view() as view:
            status = run_playbook(
                playbook,
                inventory,
                on_event=lambda event: _take(event, state, journal, view, options.diff),
                on_stopping=lambda: view.say(STOPPING),
                mark=journal.path.stem,
                limit=options.limit,
                tags=options.tags,
                check=options.check,
                diff=options.diff,
                variables=options.variables,
            )
        ended = ENDS.get(status, "failed")
        journal.end(ended, state.totals, state.running)
    for warning in state.warnings:
        print_note(f"ansible: {warning}")
    if journal.problem:
        print_note(f"the journal is not whole: {journal.problem}: {journal.path}")
    return ProvisionReport(status=ended, state=state, journal=journal.path, seconds=time.monotonic() - start_s)


def meet_last_run(inventory: Path) -> None:
    """Tell of a run that was cut off, and wait for the task that it left on a node.

    Raises:
        KanctlError: when that run is still at work; two at once would change the same files of a node.
    """
    last = last_run(inventory)
    if last is None:
        return
    if last.is_alive:
        raise KanctlError(
            f"another provisioning of this inventory runs since {last.when}: process {last.pid}, journal {last.path}",
            f"wait for it, or stop it: kill -INT {last.pid}",
        )
    print_note(f"{last.describe()}; running again")
    mark = last.path.stem
    if leftovers(mark):
        print_note("its last task still runs; waiting for it")
    while leftovers(mark):
        time.sleep(POLL_S)
    forget(mark)


def _take(
    event: dict[str, Any], state: ProvisionState, journal: Journal, view: PlainView | LiveView, diff: bool
) -> None:
    data = event.get("event_data", {})
    result = state.apply(event)
    if result is not None:
        journal.task(result)
    elif event["event"] == "runner_on_start":
        journal.begin(str(data["host"]), step_of(data), str(data.get("task", "")))
    if diff and event["event"] == "runner_on_file_diff" and event.get("stdout", "").strip():
        view.say(f"{data.get('host', '')}: {event['stdout'].strip()}")
    view.show(state)
