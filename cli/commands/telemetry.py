"""kanctl telemetry: see what every node and GPU is doing."""

from typing import Annotated

import typer

from ..app import make_group
from ..context import InventoryOption, JsonOption, LimitOption, load, select_nodes
from ..output import print_json

app = make_group("See what every node and GPU is doing.")


@app.command()
def view(
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between samples.")] = 1.0,
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show CPU, memory, disks, network and GPUs of every node, live; q leaves.

    A node that does not answer is a row that says why. With --once such a node makes the exit code 4.

    Examples:

      kanctl telemetry view

      kanctl telemetry view --once --json
    """
    import time

    from ..telemetry_table import document
    from ..telemetry_view import look_once, missing_error, print_views, watch

    cluster = load(inventory)
    nodes = select_nodes(cluster, limit)
    if not once:
        watch(cluster, nodes, interval_s=interval, as_json=as_json)
        return
    views = look_once(cluster, nodes)
    if as_json:
        print_json(document(cluster.name, time.time(), views))
    else:
        print_views(views, title=cluster.name)
    error = missing_error(views)
    if error is not None:
        raise error
