"""`kanctl lab`: a small virtual cluster on this machine."""

import os
import shlex
from typing import Annotated

import typer

from kanctl.lab.errors import LabSpecInvalid
from kanctl.lab.model import LabSpec, LabStatus, parse_hardware

from .. import exits
from ..app import make_group
from ..context import JsonOption, playbooks_dir
from ..output import print_answer, print_json, print_note, print_table

app = make_group("Bring up a small virtual cluster on this machine, and take it down.")

NameOption = Annotated[str, typer.Option("--name", help="Which lab; several can run side by side.")]


@app.command()
def up(
    nodes: Annotated[int | None, typer.Option("--nodes", help="How many nodes; 2 for a new lab.")] = None,
    name: NameOption = "lab",
    hardware: Annotated[
        list[str] | None, typer.Option("--hardware", help="NODE=NAME: facts from playbooks/recorded/NAME.yml.")
    ] = None,
    machines: Annotated[
        bool,
        typer.Option("--machines", help="QEMU machines with a kernel and GRUB of their own; slow. 1 for a new lab."),
    ] = False,
) -> None:
    """Bring the lab up, or repair it; a second time changes nothing. Needs root.

    Examples:

      kanctl lab up --nodes 2

      kanctl lab up --name gpus --nodes 3 --hardware node3=h200-x8
    """
    from kanctl.lab.backends import up as bring_up

    spec = LabSpec(name=name, node_count=nodes, hardware=parse_hardware(hardware or []), owner=_caller())
    _check_records(spec)
    try:
        _show(bring_up(spec, print_note, wants_machines=machines))
    except KeyboardInterrupt:
        print_note(f"stopped half way: kanctl lab up --name {name} goes on, kanctl lab down --name {name} removes it")
        raise


@app.command()
def down(name: NameOption = "lab") -> None:
    """Remove the lab with all its files, also after a crash. Needs root; the shared folder goes too.

    Examples:

      kanctl lab down

      kanctl lab down --name gpus
    """
    from kanctl.lab.backends import down as take_down

    take_down(name, print_note)


@app.command()
def status(name: NameOption = "lab", as_json: JsonOption = False) -> None:
    """Show the nodes and whether they answer; exit 3 when one does not.

    Examples:

      kanctl lab status

      kanctl lab status --name gpus --json
    """
    from kanctl.lab.backends import read_status

    found = read_status(name)
    if as_json:
        print_json(found.to_json())
    else:
        _show(found)
    if not found.is_running:
        raise typer.Exit(exits.CHECK_FAILED)


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def ssh(
    node: Annotated[str, typer.Argument(help="node1, node2, ...")],
    command: Annotated[list[str] | None, typer.Argument(help="One word goes to the node's shell as it is.")] = None,
    name: NameOption = "lab",
) -> None:
    """Open a shell on a node as root, or run one command there and end with its exit code.

    Examples:

      kanctl lab ssh node1

      kanctl lab ssh node2 systemctl is-system-running
    """
    from kanctl.lab.backends import ssh_words

    words = command[1:] if command and command[0] == "--" else command or []
    remote = words if len(words) < 2 else [shlex.join(words)]
    ssh_command = ssh_words(name, node, remote)
    os.execv(ssh_command[0], ssh_command)  # noqa: S606 - a list of words, no shell


def _show(found: LabStatus) -> None:
    rows = [[node.name, node.address, node.state, node.hardware or ""] for node in found.nodes]
    print_table(["node", "address", "state", "recorded hardware"], rows, title=f"lab {found.name}, {found.subnet}")
    print_answer(f"inventory: {found.inventory}")


def _caller() -> tuple[int, int]:
    """Who called sudo, so that this user can log in to the nodes too."""
    return int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0"))


def _check_records(spec: LabSpec) -> None:
    folder = playbooks_dir() / "recorded"
    known = sorted(path.stem for path in folder.glob("*.yml"))
    for node, record in spec.hardware:
        if record not in known:
            raise LabSpecInvalid(
                f"wanted for {node} a hardware record of {folder} ({', '.join(known) or 'empty'}), found {record!r}"
            )
