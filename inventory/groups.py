"""Groups of an inventory flattened to hosts, with variables merged in Ansible's order.

Source: Ansible's documentation, "Understanding variable precedence"; groups of one depth merge by name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .errors import Mistake
from .yaml_lines import Entry, entries, read_yaml

GROUP_KEYS = ("hosts", "vars", "children")
_RANGE = re.compile(r"\[(\w+):(\w+)(?::(\d+))?\]")


@dataclass(slots=True)
class Group:
    """One group as written: its own variables, its hosts and its children."""

    variables: dict[str, Entry] = field(default_factory=dict)
    hosts: dict[str, dict[str, Entry]] = field(default_factory=dict)
    children: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Tree:
    """All groups of the inventory, and where each host was first named."""

    groups: dict[str, Group] = field(default_factory=dict)
    host_lines: dict[str, int] = field(default_factory=dict)

    def depth(self, name: str, seen: frozenset[str] = frozenset()) -> int:
        """How far below `all` a group lies, by its longest way up."""
        parents = [parent for parent, group in self.groups.items() if name in group.children and parent not in seen]
        return max((self.depth(parent, seen | {name}) + 1 for parent in parents), default=0)

    def groups_of(self, host: str) -> list[str]:
        """The groups that hold a host, directly or by their children, outermost first."""
        found = {name for name, group in self.groups.items() if host in group.hosts}
        while more := {name for name, group in self.groups.items() if group.children & found} - found:
            found |= more
        return sorted(found | {"all"}, key=lambda name: (self.depth(name), name))


def read_tree(top: Entry, mistakes: list[Mistake]) -> Tree:
    """The groups of hosts.yml. What has no place there is added to `mistakes`."""
    tree = Tree(groups={"all": Group()})
    for name, entry in entries(top).items():
        _read_group(tree, name, entry, mistakes)
        if name != "all":
            tree.groups["all"].children.add(name)
    return tree


def hosts_below(tree: Tree, group: str) -> list[str]:
    """Hosts of a group and of its children, in the order of the file."""
    names = [host for host in tree.host_lines if group in tree.groups_of(host)]
    return sorted(names, key=lambda host: list(tree.host_lines).index(host))


def merged_variables(tree: Tree, host: str, folder: Path, mistakes: list[Mistake]) -> dict[str, Entry]:
    """A host's variables: inventory groups, group_vars files, the host's own, host_vars files; later ones win."""
    merged: dict[str, Entry] = {}
    names = tree.groups_of(host)
    for name in names:
        merged |= tree.groups[name].variables
    for name in names:
        merged |= read_variables_of(folder / "group_vars", name, mistakes)
    for name in names:
        merged |= tree.groups[name].hosts.get(host, {})
    return merged | read_variables_of(folder / "host_vars", host, mistakes)


def read_variables_of(folder: Path, name: str, mistakes: list[Mistake]) -> dict[str, Entry]:
    """Variables of one group or host from NAME, NAME.yml, NAME.yaml or the files of NAME/."""
    merged: dict[str, Entry] = {}
    for path in (folder / name, folder / f"{name}.yml", folder / f"{name}.yaml"):
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.is_file() or file.name.startswith(".") or file.name.endswith("~"):
                continue
            entry = read_yaml(file, mistakes)
            if entry is not None and not isinstance(entry.value, dict):
                mistakes.append(Mistake(file=file, line=1, text="wanted variables as `name: value` lines"))
            merged |= entries(entry) if entry else {}
    return merged


def _read_group(tree: Tree, name: str, entry: Entry, mistakes: list[Mistake]) -> None:
    group = tree.groups.setdefault(name, Group())
    if entry.value is None:
        return
    if not isinstance(entry.value, dict):
        text = f"group {name}: wanted {', '.join(GROUP_KEYS)} below it, found {entry.value!r}"
        mistakes.append(Mistake(file=entry.file, line=entry.line, text=text))
        return
    for key, below in entries(entry).items():
        if key not in GROUP_KEYS:
            text = f"group {name}: wanted {', '.join(GROUP_KEYS)}, found {key}"
            mistakes.append(Mistake(file=below.file, line=below.line, text=text))
        elif below.value is not None and not isinstance(below.value, dict):
            text = f"{key} of group {name}: wanted a mapping (`name:` lines), found {type(below.value).__name__}"
            mistakes.append(Mistake(file=below.file, line=below.line, text=text))
        elif key == "vars":
            group.variables |= entries(below)
        elif key == "hosts":
            _read_hosts(tree, group, below, mistakes)
        else:
            for child, child_entry in entries(below).items():
                group.children.add(child)
                _read_group(tree, child, child_entry, mistakes)


def _read_hosts(tree: Tree, group: Group, entry: Entry, mistakes: list[Mistake]) -> None:
    for pattern, host_entry in entries(entry).items():
        if host_entry.value is not None and not isinstance(host_entry.value, dict):
            text = f"host {pattern}: wanted variables below it, found {host_entry.value!r}"
            mistakes.append(Mistake(file=host_entry.file, line=host_entry.line, text=text))
        for host in expand_range(pattern):
            group.hosts.setdefault(host, {}).update(entries(host_entry))
            tree.host_lines.setdefault(host, host_entry.line)


def expand_range(pattern: str) -> Iterator[str]:
    """node[01:03] becomes node01, node02, node03; [a:c] and a step, [0:9:3], work as in Ansible."""
    match = _RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, step = match[1], match[2], int(match[3] or 1)
    if first.isdigit() and last.isdigit():
        width = len(first) if first.startswith("0") else 0
        words = [str(number).zfill(width) for number in range(int(first), int(last) + 1, step)]
    elif len(first) == len(last) == 1:
        words = [chr(code) for code in range(ord(first), ord(last) + 1, step)]
    else:
        yield pattern
        return
    for word in words:
        yield from expand_range(pattern[: match.start()] + word + pattern[match.end() :])
