"""Reads an Ansible YAML inventory into a Cluster, and names every mistake in it at once, before a node is touched."""

import re
from pathlib import Path
from typing import Any

from .errors import InventoryInvalid, Mistake
from .groups import Tree, hosts_below, merged_variables, read_tree
from .model import Cluster, Gpu, Nic, Node
from .variables import Variable, check_variable, known_variables
from .yaml_lines import Entry, read_yaml

NODES_GROUP = "nodes"
_NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def load_cluster(path: Path, roles_dir: Path | None) -> Cluster:
    """The cluster that an inventory describes.

    Args:
        path: hosts.yml; group_vars/ and host_vars/ beside it are read too.
        roles_dir: where the roles are, whose argument specs name the variables that may be set; None checks none.

    Raises:
        InventoryInvalid: with every mistake, each with file, line, what was found and what is wanted.
    """
    mistakes: list[Mistake] = []
    top = read_yaml(path, mistakes)
    if top is None or not isinstance(top.value, dict):
        if not mistakes:
            mistakes.append(
                Mistake(file=path, line=1, text="wanted groups of hosts, beginning with `all:`, found none")
            )
        raise InventoryInvalid(path, mistakes)
    tree = read_tree(top, mistakes)
    names = hosts_below(tree, NODES_GROUP)
    if not names:
        text = f"wanted at least one host below all.children.{NODES_GROUP}.hosts, found none"
        mistakes.append(Mistake(file=path, line=1, text=text))
    variables = {name: merged_variables(tree, name, path.parent, mistakes) for name in tree.host_lines}
    mistakes += _check_names(path, tree)
    mistakes += _check_variables(variables, known_variables(roles_dir))
    mistakes += _check_addresses(path, tree, variables)
    if mistakes:
        raise InventoryInvalid(path, sorted(set(mistakes)))
    return _build_cluster(path, {name: variables[name] for name in names})


def _check_names(path: Path, tree: Tree) -> list[Mistake]:
    return [
        Mistake(
            file=path,
            line=line,
            text=f"node name {name!r}: wanted letters, digits and hyphens only, at most 63, no hyphen at the ends",
        )
        for name, line in tree.host_lines.items()
        if not _NODE_NAME.fullmatch(name)
    ]


def _check_variables(variables: dict[str, dict[str, Entry]], known: dict[str, Variable]) -> list[Mistake]:
    found = []
    for entries in variables.values():
        for name, entry in entries.items():
            text = check_variable(name, entry.value, known)
            if text:
                found.append(Mistake(file=entry.file, line=entry.line, text=text))
    return found


def _check_addresses(path: Path, tree: Tree, variables: dict[str, dict[str, Entry]]) -> list[Mistake]:
    """Every node has an address, and no two nodes the same address and port."""
    found = []
    owners: dict[tuple[object, object], str] = {}
    for name, entries in variables.items():
        if "ansible_host" not in entries:
            text = f"{name}: wanted ansible_host, the address that SSH uses; found none"
            found.append(Mistake(file=path, line=tree.host_lines[name], text=text))
            continue
        entry = entries["ansible_host"]
        port = entries["ansible_port"].value if "ansible_port" in entries else 22
        owner = owners.setdefault((str(entry.value), port), name)
        if owner != name:
            text = f"{name} has the address {entry.value} port {port} of {owner}; wanted one of its own"
            found.append(Mistake(file=entry.file, line=entry.line, text=text))
    return found


def _build_cluster(path: Path, variables: dict[str, dict[str, Entry]]) -> Cluster:
    nodes = tuple(_build_node(name, {k: e.value for k, e in entries.items()}) for name, entries in variables.items())
    shared = nodes[0].variables
    return Cluster(
        name=str(shared.get("kanctl_cluster_name", path.resolve().parent.name)),
        path=path,
        nodes=nodes,
        shared_dir=str(shared["kanctl_shared_dir"]) if "kanctl_shared_dir" in shared else None,
    )


def _build_node(name: str, values: dict[str, object]) -> Node:
    return Node(
        name=name,
        address=str(values["ansible_host"]),
        port=int(str(values.get("ansible_port", 22))),
        user=str(values.get("ansible_user", "root")),
        private_key_file=_path(values.get("ansible_ssh_private_key_file")),
        known_hosts_file=_path(values.get("kanctl_known_hosts_file")),
        gpus=tuple(Gpu(**item) for item in _list(values.get("kanctl_gpus"))),
        nics=tuple(Nic(**item) for item in _list(values.get("kanctl_nics"))),
        variables=values,
    )


def _path(value: object) -> Path | None:
    return None if value is None else Path(str(value)).expanduser()


def _list(value: object) -> list[dict[str, Any]]:
    return value if isinstance(value, list) else []
