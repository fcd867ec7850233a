"""How a provisioning ended: as one JSON object, and as the error or exit code that it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kanctl.errors import KanctlError, NodeUnreachableError

from ..output import print_note
from .failures import describe_failure
from .journal import describe_running
from .state import ProvisionState


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionReport:
    """How it ended: `status` is done, failed or interrupted."""

    status: str
    state: ProvisionState
    journal: Path
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The documented object of `kanctl provision nodes --json`: docs/journal.md."""
        return {
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "journal": str(self.journal),
            "nodes": [self._node(node) for node in self.state.nodes],
            "failures": [
                {"node": f.node, "step": f.step, "task": f.task, "outcome": f.outcome, "message": f.message}
                for f in self.state.failures
            ],
        }

    def _node(self, node: str) -> dict[str, object]:
        steps = [
            {"step": step, "outcome": cell.outcome, "changed": cell.changed, "seconds": round(cell.seconds, 1)}
            for step in self.state.steps
            if (cell := self.state.cell(node, step)) is not None
        ]
        seconds = round(self.state.seconds(node), 1)
        return {"node": node, **self.state.totals[node], "seconds": seconds, "steps": steps}


def raise_for_failures(
    report: ProvisionReport, command: Sequence[str] = ("kanctl", "provision", "nodes"), limit_option: str = "--limit"
) -> None:
    """Raise what the report says: NodeUnreachableError, KanctlError, or KeyboardInterrupt after Ctrl-C.

    `command` is what the next step repeats, with `limit_option` for the nodes that failed. A run in which some nodes
    failed and others were unreachable counts as failed.
    """
    if report.status == "interrupted":
        where = describe_running(report.state.running)
        print_note(f"interrupted{' while ' + where if where else ''}; running again converges")
        raise KeyboardInterrupt
    if report.status == "done":
        return
    failures = report.state.failures
    if not failures:
        why = "; ".join(report.state.errors or report.state.warnings) or "it gave no reason"
        raise KanctlError(
            f"Ansible ended before it was done: {why}", f"the journal has what was done: {report.journal}"
        )
    names = [node for node in report.state.nodes if any(failure.node == node for failure in failures)]
    lines = "\n".join(f"  {describe_failure(failure)}" for failure in failures)
    kind = NodeUnreachableError if all(f.outcome == "unreachable" for f in failures) else KanctlError
    raise kind(
        f"{len(names)} of {len(report.state.nodes)} nodes failed\n{lines}",
        f"{' '.join(command)} {limit_option} {','.join(names)}",
    )
