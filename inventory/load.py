"""Reads an Ansible YAML inventory into a Cluster, and names every mistake in it at once, before a node is touched."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .checks import NODE_NAME
from .errors import InventoryInvalid, Mistake
from .groups import RANGE_HOSTS_MAX, Tree, hosts_below, merged_variables, read_tree
from .model import Cluster, Gpu, Nic, Node
from .variables import find_mistakes, known_variables
from .vars_files import check_file_names, read_variables
from .yaml_lines import Entry, read_yaml

NODES_GROUP = "nodes"
# Of the whole cluster, so they must say the same on every node.
_SHARED = ("kanctl_cluster_name", "kanctl_shared_dir")
_DEFAULT_PORT = 22


def load_cluster(path: Path, roles_dir: Path | None) -> Cluster:
    """The cluster that an inventory describes.

    Args:
        path: hosts.yml; group_vars/ and host_vars/ beside it are read too.
        roles_dir: where the roles are, whose argument specs name the variables that may be set; None knows no role's.

    Raises:
        InventoryInvalid: with every mistake, each with file, line, what was found and what is wanted.
    """
    mistakes: list[Mistake] = []
    top = read_yaml(path, mistakes)
    if top is None or not isinstance(top.value, dict):
        if not mistakes:
            text = "wanted groups of hosts, beginning with `all:`, found none"
            mistakes.append(Mistake(file=path, line=1, text=text))
        raise InventoryInvalid(path, mistakes)
    tree = read_tree(top, mistakes)
    names = hosts_below(tree, NODES_GROUP)
    if not names:
        text = f"wanted at least one host below all.children.{NODES_GROUP}.hosts, found none"
        mistakes.append(Mistake(file=path, line=1, text=text))
    group_files = read_variables(path.parent / "group_vars", tree.groups, mistakes)
    host_files = read_variables(path.parent / "host_vars", tree.host_lines, mistakes)
    written = [*(group.variables for group in tree.groups.values()), *group_files.values()]
    written += [*tree.host_variables.values(), *host_files.values()]
    variables = {name: merged_variables(tree, name, group_files, host_files) for name in tree.host_lines}
    mistakes += check_file_names(path.parent / "group_vars", tree.groups)
    mistakes += _check_names(path, tree)
    mistakes += _check_variables(written, roles_dir)
    mistakes += _check_addresses(path, tree, variables)
    mistakes += _check_shared({name: variables[name] for name in names})
    if mistakes:
        raise InventoryInvalid(path, sorted(set(mistakes)))
    return _build_cluster(path, {name: variables[name] for name in names})


def _check_names(path: Path, tree: Tree) -> Iterator[Mistake]:
    for name, line in tree.host_lines.items():
        if name in tree.groups:
            text = f"node name {name!r}: wanted another name than a group's, found a group of that name"
            yield Mistake(file=path, line=line, text=text)
        if not NODE_NAME.fullmatch(name):
            wanted = "letters, digits and hyphens only, at most 63, no hyphen at the ends"
            if "[" in name:
                wanted += f", or a range such as node[01:04] of at most {RANGE_HOSTS_MAX} hosts"
            yield Mistake(file=path, line=line, text=f"node name {name!r}: wanted {wanted}")


def _check_variables(written: Iterable[dict[str, Entry]], roles_dir: Path | None) -> Iterator[Mistake]:
    """Every variable where it is written, also where another one wins over it."""
    known = known_variables(roles_dir)
    for variables in written:
        for name, entry in variables.items():
            yield from find_mistakes(name, entry, known)


def _check_addresses(path: Path, tree: Tree, variables: Mapping[str, dict[str, Entry]]) -> Iterator[Mistake]:
    """Every node has an address, and no two nodes the same address and port."""
    owners: dict[tuple[str, str], str] = {}
    for name, entries in variables.items():
        entry = entries.get("ansible_host")
        if entry is None:
            text = f"{name}: wanted ansible_host, the address that SSH uses; found none"
            yield Mistake(file=path, line=tree.host_lines[name], text=text)
            continue
        port = entries["ansible_port"].value if "ansible_port" in entries else _DEFAULT_PORT
        owner = owners.setdefault((_plain_address(entry.value), str(port)), name)
        if owner != name:
            yield entry.mistake(f"{name} has the address {entry.value} port {port} of {owner}; wanted one of its own")


def _plain_address(value: object) -> str:
    """One spelling for all ways to write an address."""
    text = str(value).lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _check_shared(variables: Mapping[str, dict[str, Entry]]) -> Iterator[Mistake]:
    for key in _SHARED:
        first: tuple[str, object] | None = None
        for node, entries in variables.items():
            value = entries[key].value if key in entries else None
            first = first or (node, value)
            if value != first[1]:
                # Without an entry here there is one on the first node, and that is where to look.
                entry = entries.get(key) or variables[first[0]][key]
                said = [f"{value or 'none'} on {node}", f"{first[1] or 'none'} on {first[0]}"]
                yield entry.mistake(f"{key}: wanted the same on every node, found {' and '.join(said)}")


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
        port=int(str(values.get("ansible_port", _DEFAULT_PORT))),
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
