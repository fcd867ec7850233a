"""kanctl health: prove that every node is fit to train."""

from typing import Annotated

import typer

from ..app import make_group
from ..context import InventoryOption, JsonOption, LimitOption, load, select_nodes
from ..output import print_answer, print_json, print_table

app = make_group("Prove that every node is fit to train.")


@app.command()
def check(
    only: Annotated[str | None, typer.Option(help="Only these checks: names or groups (D2), with commas.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Check this machine, without a cluster.")] = False,
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check clocks, disks, memory, kernel, peers, shared folder, versions and GPUs of all nodes at once.

    Nothing is changed; a node need not be provisioned. Exit 3: a check failed. Exit 4: a node could not be checked.

    Examples:

      kanctl health check

      kanctl health check --limit node1 --only clock-offset,D2 --json
    """
    from ..health_run import check_cluster, check_this_machine
    from ..health_view import document, explanations, table, verdict

    names = [name.strip() for name in (only or "").split(",") if name.strip()]
    if local:
        report = check_this_machine(names)
    else:
        cluster = load(inventory)
        report = check_cluster(cluster, select_nodes(cluster, limit), names)
    if as_json:
        print_json(document(report))
    else:
        print_table(*table(report))
        print_answer("\n".join(explanations(report)))
    error = verdict(report)
    if error is not None:
        raise error
