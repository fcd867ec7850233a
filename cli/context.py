"""Which inventory a command works on, and where the shipped playbooks and the user's data lie."""

import os
from pathlib import Path
from typing import Annotated

import typer

import kanctl
from kanctl.errors import BadInputError
from kanctl.inventory import Cluster, Node

LAB_INVENTORY = Path("/var/lib/kanctl/lab/inventory/hosts.yml")

InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", "-i", help="Inventory file; default: $KANCTL_INVENTORY, ./hosts.yml, then the lab's."),
]
LimitOption = Annotated[str | None, typer.Option("--limit", "-l", help="Only these nodes, names separated by commas.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before changing anything.")]


def find_inventory(given: Path | None) -> Path:
    """The inventory to use: the one given, else $KANCTL_INVENTORY, ./hosts.yml, the lab's. Raises BadInputError."""
    if given is not None or "KANCTL_INVENTORY" in os.environ:
        path = given or Path(os.environ["KANCTL_INVENTORY"])
        # os.path answers False where pathlib raises: in a folder that may not be entered.
        if os.path.isfile(path):
            return path
        raise BadInputError(f"wanted an inventory file, found none at {path}", "kanctl inventory new")
    for path in (Path("hosts.yml"), LAB_INVENTORY):
        if os.path.isfile(path):
            return path
    raise BadInputError(
        f"no inventory: looked at ./hosts.yml and {LAB_INVENTORY}",
        "kanctl inventory new, or kanctl lab up for a virtual cluster",
    )


def load(given: Path | None) -> Cluster:
    """The checked cluster of the inventory that find_inventory names."""
    from kanctl.inventory.load import load_cluster

    return load_cluster(find_inventory(given), roles_dir=playbooks_dir() / "roles")


def select_nodes(cluster: Cluster, limit: str | None) -> tuple[Node, ...]:
    """The nodes named in `limit` (all without one), in the inventory's order. Raises BadInputError for a wrong name."""
    if limit is None:
        return cluster.nodes
    wanted = [name.strip() for name in limit.split(",") if name.strip()]
    known = [node.name for node in cluster.nodes]
    wrong = [name for name in wanted if name not in known]
    if wrong or not wanted:
        raise BadInputError(f"--limit names {', '.join(wrong) or 'no node'}; {cluster.path} has {', '.join(known)}")
    return tuple(node for node in cluster.nodes if node.name in wanted)


def playbooks_dir() -> Path:
    """The playbooks of this installation, in a checkout and in a wheel alike."""
    return (Path(kanctl.__file__).parent / "playbooks").resolve()


def user_data_dir() -> Path:
    """Where runs and corpora lie on this machine: $KANCTL_HOME, else the XDG data folder."""
    if "KANCTL_HOME" in os.environ:
        return Path(os.environ["KANCTL_HOME"]).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME", "~/.local/share")).expanduser() / "kanctl"
