"""What ansible-runner's events say about each node: a pure state, so that recorded events can test it.

A step is what a user sees as one: the role of a task, or `facts` for what Ansible gathers before a role.
"""

from dataclasses import dataclass, field
from typing import Any

FACTS = "facts"
ARGUMENT_CHECK = "validate_argument_spec"
# A warning or error of Ansible is cut to this many characters.
REMARK_LENGTH = 300
STATUS = "StatusText="
OUTCOMES = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}


@dataclass(slots=True)
class StepState:
    """One step on one node."""

    changed: int = 0
    ran: int = 0
    outcome: str = "running"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """One task's end on one node."""

    node: str
    step: str
    task: str
    outcome: str
    changed: bool
    seconds: float
    message: str


@dataclass(slots=True)
class ProvisionState:
    """All nodes of one playbook run, fed by `apply`."""

    nodes: tuple[str, ...]
    steps: list[str] = field(default_factory=list)
    cells: dict[tuple[str, str], StepState] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    failures: list[TaskResult] = field(default_factory=list)
    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    finished: list[tuple[str, str]] = field(default_factory=list)
    said: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.totals = {
            node: dict.fromkeys(("ok", "changed", "failed", "unreachable", "skipped"), 0) for node in self.nodes
        }

    def apply(self, event: dict[str, Any]) -> TaskResult | None:
        """Take in one event; gives the task's result when the event ends one.

        `finished` lists steps just ended, `said` what a task that waits for a unit of a node has just heard of it.

        Kinds of events that say nothing of a node's state, such as one item of a loop, are passed over.
        """
        kind, data = event["event"], event.get("event_data", {})
        self.finished, self.said = [], []
        if kind == "runner_on_start":
            self._start(str(data["host"]), step_of(data), str(data.get("task", "")))
        elif kind in OUTCOMES:
            return self._end(OUTCOMES[kind], data)
        elif kind == "runner_retry":
            self._hear(str(data["host"]), str(data.get("task", "")), str((data.get("res") or {}).get("stdout", "")))
        elif kind == "playbook_on_stats":
            self._close_steps()
            self._take_totals(data)
        elif kind in {"warning", "deprecated", "verbose", "error"}:
            self._take_remark(str(event.get("stdout", "")))
        return None

    def cell(self, node: str, step: str) -> StepState | None:
        """A node's state in a step, None when it has not come there."""
        return self.cells.get((node, step))

    def seconds(self, node: str) -> float:
        """How long a node's tasks took, together."""
        return sum(cell.seconds for (name, _), cell in self.cells.items() if name == node)

    def _start(self, node: str, step: str, task: str) -> None:
        if step not in self.steps:
            self.steps.append(step)
        for other in [key for key in self.cells if key[0] == node and key[1] != step]:
            self._close(other)
        self.cells.setdefault((node, step), StepState())
        self.running[node] = task

    def _hear(self, node: str, task: str, output: str) -> None:
        """Take the status line of a unit, as `systemctl show --property=StatusText` prints it."""
        words = next((line.removeprefix(STATUS) for line in output.splitlines() if line.startswith(STATUS)), "")
        now = f"{task}: {words}"
        if words and self.running.get(node) != now:
            self.running[node] = now
            self.said.append((node, words))

    def _end(self, outcome: str, data: dict[str, Any]) -> TaskResult:
        node, step = str(data["host"]), step_of(data)
        self._start(node, step, str(data.get("task", "")))
        result = data.get("res") or {}
        done = TaskResult(
            node=node,
            step=step,
            task=str(data.get("task", "")),
            outcome="ok" if outcome == "failed" and data.get("ignore_errors") else outcome,
            changed=bool(result.get("changed")) and (outcome == "ok" or bool(data.get("ignore_errors"))),
            seconds=float(data.get("duration") or 0.0),
            # Some errors of a playbook itself are told beside the result.
            message=_message(result) or (self.errors[-1] if outcome == "failed" and self.errors else ""),
        )
        self._count(done)
        state = self.cells[node, step]
        state.changed += done.changed
        # The check of a role's arguments runs under any --tags; it alone does not make a step.
        state.ran += done.outcome != "skipped" and not str(data.get("task_action")).endswith(ARGUMENT_CHECK)
        state.seconds += done.seconds
        self.running.pop(node, None)
        if done.outcome in {"failed", "unreachable"}:
            state.outcome = done.outcome
            self.failures.append(done)
            self.finished.append((node, step))
        return done

    def _close(self, key: tuple[str, str]) -> None:
        """End a step that still runs; one that a later role needs again, such as its facts, stays ended."""
        state = self.cells[key]
        if state.outcome == "running":
            state.outcome = "done" if state.ran else "skipped"
            self.finished.append(key)

    def _close_steps(self) -> None:
        for key in self.cells:
            self._close(key)

    def _count(self, done: TaskResult) -> None:
        """Count as Ansible does, so that a run which is cut short has totals too."""
        totals = self.totals.setdefault(done.node, {})
        totals[done.outcome] = totals.get(done.outcome, 0) + 1
        totals["changed"] = totals.get("changed", 0) + done.changed

    def _take_totals(self, data: dict[str, Any]) -> None:
        """Take Ansible's own totals; a failure that it does not count was rescued by the playbook."""
        keys = {"ok": "ok", "changed": "changed", "failed": "failures", "unreachable": "dark", "skipped": "skipped"}
        for node in self.nodes:
            self.totals[node] = {name: int(data.get(key, {}).get(node, 0)) for name, key in keys.items()}
        whole = {node for node, totals in self.totals.items() if not totals["failed"] + totals["unreachable"]}
        self.failures = [failure for failure in self.failures if failure.node not in whole]
        for (node, _), cell in self.cells.items():
            if node in whole and cell.outcome in {"failed", "unreachable"}:
                cell.outcome = "done"

    def _take_remark(self, text: str) -> None:
        """Keep a warning or an error of the playbook once, without the lines of its source."""
        line = " ".join(text.split())
        if line.startswith("Origin:") and self.errors:
            self.errors[-1] += f" ({line.removeprefix('Origin: ')})"
        elif line.startswith(("[ERROR]", "ERROR")):
            self._keep(self.errors, line.removeprefix("[ERROR]: "))
        elif line.startswith("["):
            self._keep(self.warnings, line.removeprefix("[WARNING]: "))

    def _keep(self, lines: list[str], line: str) -> None:
        if line not in lines:
            lines.append(line if len(line) <= REMARK_LENGTH else line[:REMARK_LENGTH] + "...")


def step_of(data: dict[str, Any]) -> str:
    """The step that an event's task belongs to."""
    return str(data.get("role") or FACTS)


def _message(result: dict[str, Any]) -> str:
    """The words of a failed task: its message, then the tail of what its command wrote."""
    items = [item for item in result.get("results", []) if isinstance(item, dict) and item.get("failed")]
    if items:
        return "; ".join(f"item {item.get('item', '?')}: {_message(item)}" for item in items)
    # Gathering facts tells why it failed one level down, for each of its modules.
    modules = result.get("failed_modules") or {}
    if modules:
        return "; ".join(_message(failed) for failed in modules.values())
    message = result.get("msg") or result.get("assertion") or result.get("censored") or ""
    text = message if isinstance(message, str) else "\n".join(map(str, message))
    text = text.strip().removeprefix("Task failed: ")
    output = str(result.get("stderr") or result.get("module_stderr") or result.get("stdout") or "")
    tail = "\n".join(output.strip().splitlines()[-5:])
    return "\n".join([text, tail] if tail and tail not in text else [text]).strip()
