"""What ansible-runner's events say about each node: a pure state, so that recorded events can test it.

A step is what a user sees as one: the role of a task, or `facts` for what Ansible gathers before a role.
"""

from dataclasses import dataclass, field
from typing import Any

FACTS = "facts"
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
    finished: list[tuple[str, str]] = field(default_factory=list)

    def apply(self, event: dict[str, Any]) -> TaskResult | None:
        """Take in one event; gives the task's result when the event ends one. `finished` lists steps just ended."""
        kind, data = event["event"], event.get("event_data", {})
        self.finished = []
        if kind == "runner_on_start":
            self._start(str(data["host"]), _step(data), str(data.get("task", "")))
        elif kind in OUTCOMES:
            return self._end(OUTCOMES[kind], data)
        elif kind == "playbook_on_stats":
            self._close_steps()
            self._take_totals(data)
        elif kind in {"warning", "deprecated"}:
            self._warn(str(event.get("stdout", "")))
        elif kind in {"verbose", "error"} and "ERROR" in event.get("stdout", ""):
            self._warn(str(event["stdout"]))
        return None

    def cell(self, node: str, step: str) -> StepState | None:
        """A node's state in a step, None when it has not come there."""
        return self.cells.get((node, step))

    def _start(self, node: str, step: str, task: str) -> None:
        if step not in self.steps:
            self.steps.append(step)
        for other in [key for key in self.cells if key[0] == node and key[1] != step]:
            self._close(other)
        self.cells.setdefault((node, step), StepState())
        self.running[node] = task

    def _end(self, outcome: str, data: dict[str, Any]) -> TaskResult:
        node, step = str(data["host"]), _step(data)
        self._start(node, step, str(data.get("task", "")))
        result = data.get("res") or {}
        done = TaskResult(
            node=node,
            step=step,
            task=str(data.get("task", "")),
            outcome="ok" if outcome == "failed" and data.get("ignore_errors") else outcome,
            changed=bool(result.get("changed")) and outcome == "ok",
            seconds=float(data.get("duration") or 0.0),
            message=_message(result),
        )
        state = self.cells[node, step]
        state.changed += done.changed
        state.ran += done.outcome != "skipped"
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

    def _take_totals(self, data: dict[str, Any]) -> None:
        keys = {"ok": "ok", "changed": "changed", "failed": "failures", "unreachable": "dark", "skipped": "skipped"}
        for node in self.nodes:
            self.totals[node] = {name: int(data.get(key, {}).get(node, 0)) for name, key in keys.items()}

    def _warn(self, text: str) -> None:
        line = " ".join(text.replace("[WARNING]:", "").replace("[DEPRECATION WARNING]:", "").split())
        if line and line not in self.warnings:
            self.warnings.append(line)


def _step(data: dict[str, Any]) -> str:
    return str(data.get("role") or FACTS)


def _message(result: dict[str, Any]) -> str:
    """The words of a failed task: its message, else the tail of what its command wrote."""
    items = [item for item in result.get("results", []) if isinstance(item, dict) and item.get("failed")]
    if items:
        return "; ".join(_message(item) for item in items)
    message = result.get("msg") or result.get("assertion") or ""
    text = message if isinstance(message, str) else "\n".join(map(str, message))
    output = str(result.get("stderr") or result.get("module_stderr") or result.get("stdout") or "")
    tail = "\n".join(output.strip().splitlines()[-5:])
    return "\n".join(part for part in (text.strip(), tail) if part and part not in (text if part is tail else ""))
