"""kanctl provision: bring nodes to the declared state."""

from pathlib import Path
from typing import Annotated

import typer

from kanctl.errors import BadInputError

from ..app import make_group
from ..context import InventoryOption, JsonOption, LimitOption, YesOption, load, playbooks_dir, select_nodes
from ..output import confirm, print_answer, print_json, print_note

app = make_group("Bring nodes to the declared state over SSH.")


@app.callback()
def _group() -> None:
    """Keeps `nodes` a word of its own while the group has one command."""


@app.command()
def nodes(
    inventory: InventoryOption = None,
    limit: LimitOption = None,
    tags: Annotated[str | None, typer.Option(help="Only these steps: role names separated by commas.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Show what would change; change nothing.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the lines of files that change.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring every node to the state that the inventory and the roles declare; a second run changes nothing.

    Examples:

      kanctl provision nodes --check --diff

      kanctl provision nodes --limit node1,node2 --tags trainer --yes
    """
    from ..provisioning.run import ProvisionOptions, provision, raise_for_failures
    from ..provisioning.steps import read_steps, select_steps
    from ..provisioning.view import print_summary

    cluster = load(inventory)
    names = tuple(node.name for node in select_nodes(cluster, limit))
    playbook = playbooks_dir() / "site.yml"
    options = ProvisionOptions(limit=names if limit else (), tags=_split(tags), check=check, diff=diff)
    steps = select_steps(read_steps(playbook), options.tags)
    count = f"{len(names)} node{'s' if len(names) > 1 else ''}"
    print_note(f"{cluster.path}: {count}: {', '.join(names)}")
    print_note(f"steps: {', '.join(step.name for step in steps)}")
    if not (check or yes or confirm(f"Change {count}?")):
        raise BadInputError("nothing was changed: not confirmed", "answer y on a terminal, or --yes")
    report = provision(playbook, cluster.path, names, options)
    if as_json:
        print_json(report.to_json())
    else:
        print_summary(report.state)
    print_note(f"journal: {report.journal}")
    raise_for_failures(report, _command(inventory, tags, check))
    if check and not as_json:
        print_answer("nothing was changed: --check")


def _command(inventory: Path | None, tags: str | None, check: bool) -> list[str]:
    """The words that repeat this command, less --limit."""
    words = ["kanctl", "provision", "nodes", *(["--check"] if check else [])]
    words += ["--inventory", str(inventory)] if inventory else []
    return words + (["--tags", tags] if tags else [])


def _split(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (words or "").split(",") if word.strip())
