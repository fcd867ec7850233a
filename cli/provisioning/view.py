"""How a provisioning looks: a live table of nodes x steps on a terminal, plain lines elsewhere, and the summary."""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..output import print_note, print_table
from .journal import describe_running
from .state import ProvisionState, StepState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# How many of the slowest steps the summary names.
SLOWEST = 5


class PlainView:
    """One line on stderr for each step that a node has finished, and for each word of what is waited for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def show(self, state: ProvisionState) -> None:
        """Tell of the steps that the last event finished, and of progress within one."""
        for node, words in state.said:
            print_note(f"{node}: {words}")
        for node, step in state.finished:
            cell = state.cells[node, step]
            changed = f", {cell.changed} changed" if cell.changed else ""
            if cell.outcome != "skipped":
                print_note(f"{node}: {step} {cell.outcome} in {cell.seconds:.0f} s{changed}")

    def say(self, text: str) -> None:
        """Write a line between the others."""
        print_note(text)


class LiveView:
    """A table that stays in place while it fills, with what runs now, and since when, below it."""

    def __init__(self, console: "Console") -> None:
        from rich.live import Live

        self._live = Live(console=console, refresh_per_second=4)
        self._now = _Now(start_s=time.monotonic())

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._now.words = ""
        self._live.stop()

    def show(self, state: ProvisionState) -> None:
        """Draw the table anew."""
        from rich.console import Group

        self._now.words = describe_running(state.running)
        self._live.update(Group(draw_table(state), self._now))

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._live.console.print(text)


@dataclass(slots=True)
class _Now:
    """The line below the table; rich asks for it at each refresh, so its clock goes on between events."""

    start_s: float
    words: str = ""

    def __rich__(self) -> str:
        return f"  {time.monotonic() - self.start_s:.0f} s  {self.words}"


def make_view() -> PlainView | LiveView:
    """The live table where stderr is a terminal that can move its cursor."""
    if not sys.stderr.isatty():
        return PlainView()
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    return PlainView() if console.is_dumb_terminal else LiveView(console)


def draw_table(state: ProvisionState) -> "Table":
    """Nodes x steps; steps that no node needs are left out, so that it fits 80 columns."""
    from rich import box
    from rich.table import Table

    steps = [s for s in state.steps if any((c := state.cell(n, s)) and c.outcome != "skipped" for n in state.nodes)]
    # Names of roles are broken at their underscores, because the columns are narrow.
    table = Table("node", *(step.replace("_", "_\n") for step in steps), box=box.SIMPLE_HEAD)
    for node in state.nodes:
        table.add_row(node, *(describe_cell(state.cell(node, step)) for step in steps))
    return table


def describe_cell(cell: StepState | None) -> str:
    """A word for a table cell; `ok +4` is a step that is done and changed four things."""
    if cell is None:
        return ""
    changed = f" +{cell.changed}" if cell.changed else ""
    words = {"running": "...", "done": "ok", "skipped": "-"}
    return words.get(cell.outcome, cell.outcome.upper()) + changed


def print_summary(state: ProvisionState) -> None:
    """Per node what was done, then where the time went."""
    rows = [
        [
            node,
            *(str(state.totals[node][key]) for key in ("ok", "changed", "failed", "unreachable")),
            f"{state.seconds(node):.0f} s",
        ]
        for node in state.nodes
    ]
    print_table(["node", "ok", "changed", "failed", "unreachable", "took"], rows)
    slowest = sorted(state.cells.items(), key=lambda item: -item[1].seconds)[:SLOWEST]
    if slowest:
        print_table(["slowest steps", "node", "took"], [[s, n, f"{c.seconds:.0f} s"] for (n, s), c in slowest])
