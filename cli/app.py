"""The `kanctl` command: finds the group asked for, loads only its file, turns every error into one message and a code.

Must stay light: importing this file loads neither torch nor ansible, and --help answers within 0.15 s.
"""

import inspect
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from kanctl import __version__
from kanctl.errors import KanctlError

from . import exits
from .output import print_answer, print_note

# Group name -> its line in `kanctl --help`; each is a file of cli/commands, loaded only when it is used.
GROUPS = {
    "lab": "Bring up a small virtual cluster on this machine, and take it down.",
    "inventory": "Write, show and check the file that says which nodes there are.",
    "provision": "Bring nodes to the declared state over SSH.",
    "kernel": "Build, test and safely install kernels made for these nodes.",
    "health": "Prove that every node is fit to train.",
    "train": "Prepare text, train on all nodes, evaluate and sample.",
    "telemetry": "See what every node and GPU is doing.",
}

SUMMARY = "Turn bare GPU machines into a trained model, over plain SSH."

EXAMPLES = """Examples:

  kanctl lab up --nodes 2

  kanctl provision nodes --yes
"""


def make_group(summary: str) -> typer.Typer:
    """An empty command group in the house's settings; cli/commands/<group>.py fills one each."""
    return typer.Typer(
        help=summary,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def build_app(words: Sequence[str]) -> typer.Typer:
    """The whole command tree; only the groups named in `words` are loaded, the others know just their help line."""
    app = typer.Typer(
        name="kanctl",
        help=SUMMARY,
        epilog=EXAMPLES,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, summary in GROUPS.items():
        group = _load_group(name) if name in words else _stand_in(summary)
        app.add_typer(group, name=name, help=summary)
    return app


def _load_group(name: str) -> typer.Typer:
    """A group with the examples of each docstring moved behind the options, where help ends."""
    group: typer.Typer = import_module(f".commands.{name}", __package__).app
    for command in group.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help, mark, examples = text.partition("Examples:")
        command.epilog = mark + examples
    return group


def _print_version(asked: bool) -> None:
    if asked:
        print_answer(f"kanctl {__version__}")
        raise typer.Exit(exits.DONE)


def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Options of the command itself."""


def _stand_in(summary: str) -> typer.Typer:
    group = make_group(summary)
    group.callback()(lambda: None)
    return group


def main() -> None:
    """Entry point of the console script. Exits with the codes of exits.py."""
    # When the shell asks for completions the words are in the environment, so every group is loaded.
    words = list(GROUPS) if "_KANCTL_COMPLETE" in os.environ else sys.argv[1:2]
    try:
        build_app(words)()
    except KanctlError as error:
        print_note(f"kanctl: {error}")
        if error.next_step:
            print_note(f"  next: {error.next_step}")
        if os.environ.get("KANCTL_DEBUG"):
            raise
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print_note("kanctl: interrupted")
        sys.exit(exits.INTERRUPTED)
