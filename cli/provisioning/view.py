"""How a provisioning looks: a live table of nodes x steps on a terminal, plain lines elsewhere, and the summary."""

import sys
from types import TracebackType
from typing import Self

from ..output import print_note, print_table
from .state import ProvisionState, StepState

# How many of the slowest steps the summary names.
SLOWEST = 5


class PlainView:
    """One line on stderr for each step that a node has finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def show(self, state: ProvisionState) -> None:
        """Tell of the steps that the last event finished."""
        for node, step in state.finished:
            cell = state.cells[node, step]
            changed = f", {cell.changed} changed" if cell.changed else ""
            if cell.outcome != "skipped":
                print_note(f"{node}: {step} {cell.outcome} in {cell.seconds:.0f} s{changed}")

    def say(self, text: str) -> None:
        """Write a line between the others."""
        print_note(text)


class LiveView:
    """A table that stays in place while it fills."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True, highlight=False, markup=False), refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()

    def show(self, state: ProvisionState) -> None:
        """Draw the table anew."""
        from rich import box
        from rich.table import Table

        table = Table("node", *state.steps, "now", box=box.SIMPLE_HEAD)
        for node in state.nodes:
            cells = [describe_cell(state.cell(node, step)) for step in state.steps]
            table.add_row(node, *cells, state.running.get(node, "")[:48])
        self._live.update(table)

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._live.console.print(text)


def make_view() -> PlainView | LiveView:
    """The live table where stderr is a terminal."""
    return LiveView() if sys.stderr.isatty() else PlainView()


def describe_cell(cell: StepState | None) -> str:
    """A few words for a table cell."""
    if cell is None:
        return "-"
    if cell.outcome == "running":
        return f"... {cell.changed} changed" if cell.changed else "..."
    if cell.outcome == "done":
        return f"{cell.changed} changed" if cell.changed else "ok"
    return "-" if cell.outcome == "skipped" else cell.outcome.upper()


def print_summary(state: ProvisionState) -> None:
    """Per node what was done, then where the time went."""
    rows = [
        [node, *(str(state.totals.get(node, {}).get(key, 0)) for key in ("ok", "changed", "failed", "unreachable"))]
        for node in state.nodes
    ]
    print_table(["node", "ok", "changed", "failed", "unreachable"], rows)
    slowest = sorted(state.cells.items(), key=lambda item: -item[1].seconds)[:SLOWEST]
    print_table(["slowest steps", "node", "took"], [[s, n, f"{c.seconds:.0f} s"] for (n, s), c in slowest])
