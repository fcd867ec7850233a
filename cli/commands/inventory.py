"""kanctl inventory: write, show and check the file that says which nodes there are."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..app import make_group
from ..context import InventoryOption, JsonOption, find_inventory, load
from ..output import print_answer, print_json, print_note, print_table

app = make_group("Write, show and check the file that says which nodes there are.")


@app.command()
def new(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("hosts.yml"),
    node: Annotated[list[str] | None, typer.Option(help="NAME=ADDRESS, once per node.")] = None,
    cluster: Annotated[str, typer.Option(help="Name of the cluster.")] = "cluster",
    user: Annotated[str, typer.Option(help="User that SSH logs in as.")] = "root",
    key: Annotated[str | None, typer.Option(help="Private key file; default: ssh's own.")] = None,
    shared_dir: Annotated[str | None, typer.Option(help="Folder that all nodes share.")] = None,
    gpus: Annotated[str | None, typer.Option(help="GPUs of each node, MODEL:COUNT[:MEMORY_GIB].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented inventory from flags, or ask on the terminal for what they leave open.

    Examples:

      kanctl inventory new

      kanctl inventory new --node node1=10.0.0.11 --node node2=10.0.0.12
    """
    from ..inventory_new import (
        NewInventory,
        ask_for_missing,
        parse_nodes,
        plain_key,
        refuse_to_overwrite,
        write_inventory,
    )

    refuse_to_overwrite(output, force=force)
    given = NewInventory(
        nodes=parse_nodes(node or []), cluster=cluster, user=user, key=plain_key(key), shared_dir=shared_dir, gpus=gpus
    )
    write_inventory(ask_for_missing(given), output, force=force)
    print_answer(str(output))
    print_note("next: kanctl inventory check, then kanctl provision nodes --check --diff")


@app.command()
def show(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Show the nodes of the inventory, how SSH reaches them, and their GPUs.

    Examples:

      kanctl inventory show

      kanctl inventory show --inventory hosts.yml --json
    """
    cluster = load(inventory)
    if as_json:
        document = asdict(cluster)
        for node in document["nodes"]:
            del node["variables"]
        print_json(_plain(document))
        return
    rows = [
        [n.name, f"{n.user}@{n.address}:{n.port}", ", ".join(f"{g.count} x {g.model}" for g in n.gpus) or "none"]
        for n in cluster.nodes
    ]
    print_table(["node", "ssh", "gpus"], rows, title=f"{cluster.name} ({cluster.path})")
    print_answer(f"shared folder: {cluster.shared_dir or 'none'}")


@app.command()
def check(inventory: InventoryOption = None, as_json: JsonOption = False) -> None:
    """Check the inventory and name every mistake with its line; touches no node. Exit code 2 when there is one.

    Examples:

      kanctl inventory check

      kanctl inventory check --inventory hosts.yml --json
    """
    from kanctl.inventory.errors import InventoryInvalid

    try:
        cluster = load(inventory)
    except InventoryInvalid as error:
        if as_json:
            print_json({"valid": False, "path": str(find_inventory(inventory)), "mistakes": _plain(error.mistakes)})
        raise
    if as_json:
        print_json({"valid": True, "path": str(cluster.path), "mistakes": []})
    else:
        print_answer(f"{cluster.path}: {len(cluster.nodes)} nodes, no mistake")


def _plain(value: object) -> object:
    """Dataclasses and paths as what JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain({name: getattr(value, name) for name in value.__dataclass_fields__})
    return str(value) if isinstance(value, Path) else value
