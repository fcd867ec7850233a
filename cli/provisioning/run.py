"""Provisioning as one function: the playbook is run, its events kept and shown, and the end judged."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanctl.errors import KanctlError, NodeUnreachableError

from ..output import print_note
from ..run_ansible import run_playbook
from .journal import Journal, describe_cut_off
from .state import ProvisionState, TaskResult
from .view import LiveView, PlainView, make_view

# What Ansible says of an unreachable node, and what that means to its owner.
UNREACHABLE = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
     "shows another host key than the known one, or an unknown one",
     "compare the key on the machine; if it was reinstalled: ssh-keygen -R its address, then ssh to it once"),
    (r"Permission denied", "refused the login", "check ansible_user and the private key in the inventory"),
    (r"No route to host|Network is unreachable", "has no route to it", "is it up, and is the address right?"),
    (r"Connection refused", "refuses connections", "is sshd running, and is the port right?"),
    (r"timed out|Timeout", "did not answer in time", "is it up, and is the address right?"),
    (r"Could not resolve", "has a name that does not resolve", "set ansible_host to an address"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionOptions:
    """What the user asked for."""

    limit: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    check: bool = False
    diff: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionReport:
    """How it ended: `status` is done, failed or interrupted."""

    status: str
    state: ProvisionState
    journal: Path
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The documented object of `kanctl provision nodes --json`."""
        return {
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "journal": str(self.journal),
            "nodes": [{"node": node, **self.state.totals.get(node, {})} for node in self.state.nodes],
            "failures": [
                {"node": f.node, "step": f.step, "task": f.task, "outcome": f.outcome, "message": f.message}
                for f in self.state.failures
            ],
        }


def provision(playbook: Path, inventory: Path, nodes: Sequence[str], options: ProvisionOptions) -> ProvisionReport:
    """Run the playbook on the nodes. Failures are in the report; raise_for_failures turns them into errors."""
    if remark := describe_cut_off(inventory):
        print_note(remark)
    start_s = time.monotonic()
    state = ProvisionState(nodes=tuple(nodes))
    journal = Journal(inventory, state.nodes, {"tags": options.tags, "check": options.check})
    with make_view() as view:
        status = run_playbook(
            playbook,
            inventory,
            on_event=lambda event: _take(event, state, journal, view, options.diff),
            limit=options.limit,
            tags=options.tags,
            check=options.check,
            diff=options.diff,
        )
    for warning in state.warnings:
        print_note(f"ansible: {warning}")
    ended = {"successful": "done", "canceled": "interrupted"}.get(status, "failed")
    journal.end(ended, state.totals)
    return ProvisionReport(status=ended, state=state, journal=journal.path, seconds=time.monotonic() - start_s)


def _take(
    event: dict[str, Any], state: ProvisionState, journal: Journal, view: PlainView | LiveView, diff: bool
) -> None:
    result = state.apply(event)
    if result is not None:
        journal.task(result)
    if diff and event["event"] == "runner_on_file_diff" and event.get("stdout", "").strip():
        view.say(f"{event['event_data'].get('host', '')}: {event['stdout'].strip()}")
    view.show(state)


def raise_for_failures(report: ProvisionReport) -> None:
    """Raise what the report says: NodeUnreachableError, KanctlError, or KeyboardInterrupt after Ctrl-C."""
    if report.status == "interrupted":
        busy = ", ".join(f"{node} ('{task}')" for node, task in report.state.running.items())
        print_note(f"interrupted{' on ' + busy if busy else ''}; running again converges; journal: {report.journal}")
        raise KeyboardInterrupt
    failures = report.state.failures
    if not failures and report.status == "done":
        return
    if not failures:
        raise KanctlError(f"Ansible ended without running: {'; '.join(report.state.warnings) or 'no reason given'}")
    names = sorted({failure.node for failure in failures})
    lines = "\n".join(f"  {describe_failure(failure)}" for failure in failures)
    kind = NodeUnreachableError if all(f.outcome == "unreachable" for f in failures) else KanctlError
    raise kind(
        f"{len(names)} of {len(report.state.nodes)} nodes failed\n{lines}",
        f"kanctl provision nodes --limit {','.join(names)}",
    )


def describe_failure(failure: TaskResult) -> str:
    """One failed task in words; for an unreachable node the reason and what to do, not Ansible's wall of text."""
    if failure.outcome == "unreachable":
        for pattern, meaning, advice in UNREACHABLE:
            if re.search(pattern, failure.message, re.IGNORECASE):
                return f"{failure.node} {meaning}: {advice}"
        return f"{failure.node} cannot be reached: {' '.join(failure.message.split())[:300]}"
    return f"{failure.node}: {failure.step}: '{failure.task}': {failure.message[:2000]}"
