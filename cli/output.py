"""How answers reach the user: tables and JSON on stdout, everything else on stderr. The only file that prints."""

import json
import sys
from collections.abc import Iterable, Sequence


def print_json(document: object) -> None:
    """Write one JSON document to stdout, keys in the order given."""
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_answer(text: str) -> None:
    """Write a line of the answer to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Write a line of progress or advice to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Write a table to stdout; plain tab-free text when stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    console.print(table)


def confirm(question: str) -> bool:
    """Ask on the terminal; False when stdin is no terminal, so nothing is ever changed by a script without --yes."""
    if not sys.stdin.isatty():
        return False
    print_note(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
