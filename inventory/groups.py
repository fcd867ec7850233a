"""Groups of an inventory flattened to hosts, with variables merged in Ansible's order.

Which files beside hosts.yml hold variables is vars_files.py's work. Source: Ansible's documentation, "Understanding
variable precedence"; groups of one depth merge by priority, then by name.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from .errors import Mistake
from .yaml_lines import Entry, entries, keys_that_are_no_text

GROUP_KEYS = ("hosts", "vars", "children")
# Ansible turns other characters into _ with a warning, and then a file of group_vars has another name.
_GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RANGE = re.compile(r"\[([0-9]{1,9}|[A-Za-z]):([0-9]{1,9}|[A-Za-z])(?::([0-9]{1,9}))?\]")
# A slip of the finger, [1:99999999], must not fill the memory.
RANGE_HOSTS_MAX = 1000


@dataclass(slots=True)
class Group:
    """One group as written: where, its own variables, its hosts and its children."""

    entry: Entry | None = None
    variables: dict[str, Entry] = field(default_factory=dict)
    hosts: set[str] = field(default_factory=set)
    children: set[str] = field(default_factory=set)

    @property
    def priority(self) -> int:
        """Ansible's way to order groups of one depth."""
        entry = self.variables.get("ansible_group_priority")
        return entry.value if entry is not None and isinstance(entry.value, int) else 1


@dataclass(slots=True)
class Tree:
    """All groups and hosts of the inventory; hosts in the order in which they are first named."""

    groups: dict[str, Group] = field(default_factory=dict)
    host_lines: dict[str, int] = field(default_factory=dict)
    # What stands below the host's name, wherever it is named; the last in the file wins, as in Ansible.
    host_variables: dict[str, dict[str, Entry]] = field(default_factory=dict)
    # How far below `all` each group lies, by its longest way up.
    depths: dict[str, int] = field(default_factory=dict)
    # Names with the YAML nodes read for them: aliases of aliases lead to one node along exponentially many ways.
    read: set[tuple[str, int]] = field(default_factory=set)

    def measure_depths(self) -> None:
        """Fill in `depths`; groups in a circle, which is a mistake, end with the depth that they had got to."""
        self.depths = dict.fromkeys(self.groups, 0)
        for _ in self.groups:
            before = dict(self.depths)
            for name, group in self.groups.items():
                self.depths |= {child: max(self.depths[child], self.depths[name] + 1) for child in group.children}
            if self.depths == before:
                return

    def groups_of(self, host: str) -> list[str]:
        """The groups that hold a host, directly or by their children, outermost first."""
        found = {name for name, group in self.groups.items() if host in group.hosts}
        while more := {name for name, group in self.groups.items() if group.children & found} - found:
            found |= more
        return sorted(found | {"all"}, key=lambda name: (self.depths[name], self.groups[name].priority, name))

    def below(self, group: str) -> set[str]:
        """A group's children, their children and so on."""
        found: set[str] = set()
        waiting = set(self.groups[group].children)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting |= self.groups[name].children
        return found


def read_tree(top: Entry, mistakes: list[Mistake]) -> Tree:
    """The groups of hosts.yml. What has no place there is added to `mistakes`."""
    tree = Tree(groups={"all": Group()})
    mistakes += keys_that_are_no_text(top)
    for name, entry in entries(top).items():
        _read_group(tree, name, entry, mistakes)
        if name != "all":
            tree.groups["all"].children.add(name)
    tree.measure_depths()
    for name, group in tree.groups.items():
        if name in tree.below(name) and group.entry is not None:
            mistakes.append(group.entry.mistake(f"group {name}: wanted children other than itself, found a circle"))
    return tree


def hosts_below(tree: Tree, group: str) -> list[str]:
    """Hosts of a group and of its children, in the order of the file."""
    if group not in tree.groups:
        return []
    members = set().union(*(tree.groups[name].hosts for name in {group, *tree.below(group)}))
    return [host for host in tree.host_lines if host in members]


def merged_variables(
    tree: Tree, host: str, group_files: Mapping[str, dict[str, Entry]], host_files: Mapping[str, dict[str, Entry]]
) -> dict[str, Entry]:
    """A host's variables: groups of hosts.yml, files of groups, the host in hosts.yml, its files; later ones win."""
    merged: dict[str, Entry] = {}
    names = tree.groups_of(host)
    for name in names:
        merged |= tree.groups[name].variables
    for name in names:
        merged |= group_files.get(name, {})
    return merged | tree.host_variables[host] | host_files.get(host, {})


def _read_group(tree: Tree, name: str, entry: Entry, mistakes: list[Mistake]) -> None:
    group = tree.groups.setdefault(name, Group())
    group.entry = group.entry or entry
    if not _GROUP_NAME.fullmatch(name):
        mistakes.append(entry.mistake(f"group name {name!r}: wanted letters, digits and _, no digit first"))
    if entry.value is None or (name, id(entry.node)) in tree.read:
        return
    tree.read.add((name, id(entry.node)))
    if not isinstance(entry.value, dict):
        text = f"group {name}: wanted {', '.join(GROUP_KEYS)} below it, found {entry.value!r}"
        mistakes.append(entry.mistake(text))
        return
    for key, below in entries(entry).items():
        if key not in GROUP_KEYS:
            mistakes.append(below.mistake(f"group {name}: wanted {', '.join(GROUP_KEYS)}, found {key}"))
        elif below.value is not None and not isinstance(below.value, dict):
            kind = type(below.value).__name__
            mistakes.append(below.mistake(f"{key} of group {name}: wanted a mapping (`name:` lines), found {kind}"))
        elif key == "vars":
            group.variables |= entries(below)
        elif key == "hosts":
            _read_hosts(tree, group, below, mistakes)
        else:
            mistakes += keys_that_are_no_text(below)
            for child, child_entry in entries(below).items():
                group.children.add(child)
                _read_group(tree, child, child_entry, mistakes)


def _read_hosts(tree: Tree, group: Group, entry: Entry, mistakes: list[Mistake]) -> None:
    mistakes += keys_that_are_no_text(entry)
    for pattern, host_entry in entries(entry).items():
        if host_entry.value is not None and not isinstance(host_entry.value, dict):
            mistakes.append(
                host_entry.mistake(f"host {pattern}: wanted variables below it, found {host_entry.value!r}")
            )
        for host in expand_range(pattern):
            group.hosts.add(host)
            tree.host_lines.setdefault(host, host_entry.line)
            tree.host_variables.setdefault(host, {}).update(entries(host_entry))


def expand_range(pattern: str) -> list[str]:
    """node[01:03] becomes node01, node02, node03; [a:c] and a step, [0:9:3], work as in Ansible.

    A range that says nothing, such as [3:1], [01:100] or one of more than RANGE_HOSTS_MAX hosts, stays as it is.
    """
    names = list(islice(_expand(pattern), RANGE_HOSTS_MAX + 1))
    return names if len(names) <= RANGE_HOSTS_MAX else [pattern]


def _expand(pattern: str) -> Iterator[str]:
    match = _RANGE.search(pattern)
    words = _range_words(match[1], match[2], int(match[3] or 1)) if match else []
    if match is None or not words:
        yield pattern
        return
    for word in words:
        yield from _expand(pattern[: match.start()] + word + pattern[match.end() :])


def _range_words(first: str, last: str, step: int) -> list[str]:
    if first.isdigit() != last.isdigit() or step < 1:
        return []
    if not first.isdigit():
        return (
            [chr(code) for code in range(ord(first), ord(last) + 1, step)] if first.islower() == last.islower() else []
        )
    is_padded = first.startswith("0") and len(first) > 1
    numbers = range(int(first), int(last) + 1, step)
    if len(numbers) > RANGE_HOSTS_MAX or (is_padded and len(first) != len(last)):
        return []
    return [str(number).zfill(len(first) if is_padded else 0) for number in numbers]
