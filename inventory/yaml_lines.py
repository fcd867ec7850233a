"""YAML read with the line of every key, so that a mistake can be shown where it stands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import Mistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key's value with the place of the key; `node` is for looking deeper with the same care."""

    value: Any
    file: Path
    line: int
    node: yaml.Node | None = None


class Opaque(str):
    """A value that only Ansible can read, such as one kept in a vault; its content is not checked."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Plain YAML plus Ansible's tags for values that are not ours to read."""


def _construct_opaque(loader: yaml.SafeLoader, node: yaml.Node) -> Opaque:
    assert isinstance(node, yaml.ScalarNode)
    return Opaque(loader.construct_scalar(node))


for _tag in ("!vault", "!unsafe"):
    _Loader.add_constructor(_tag, _construct_opaque)


def read_yaml(path: Path, mistakes: list[Mistake]) -> Entry | None:
    """A file's top value; None when it is empty or cannot be read, with the reason added to `mistakes`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        mistakes.append(Mistake(file=path, line=1, text=f"wanted a readable YAML file: {reason}"))
        return None
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _report_twins(node, path, mistakes)
        return Entry(value=loader.construct_document(node), file=path, line=1, node=node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "wrong YAML"
        if "'\\t'" in problem:
            problem = "a tab where YAML wants spaces"
        mistakes.append(Mistake(file=path, line=mark.line + 1 if mark else 1, text=f"wanted YAML: {problem}"))
        return None
    finally:
        loader.dispose()


def entries(entry: Entry) -> dict[str, Entry]:
    """The keys of a mapping with their places; empty for anything else. Merge keys (<<) are already merged in."""
    if not isinstance(entry.node, yaml.MappingNode) or not isinstance(entry.value, dict):
        return {}
    places = {str(key.value): (key, value) for key, value in entry.node.value}
    found = {}
    for key, value in entry.value.items():
        key_node, value_node = places.get(str(key), (entry.node, None))
        found[str(key)] = Entry(value=value, file=entry.file, line=key_node.start_mark.line + 1, node=value_node)
    return found


def _report_twins(node: yaml.Node, path: Path, mistakes: list[Mistake]) -> None:
    """Name keys that stand twice in one mapping: YAML would silently take the last."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _report_twins(item, path, mistakes)
    if not isinstance(node, yaml.MappingNode):
        return
    first_lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in first_lines:
                text = f"{key.value} stands here and in line {first_lines[key.value]}; wanted it once"
                mistakes.append(Mistake(file=path, line=line, text=text))
            first_lines.setdefault(key.value, line)
        _report_twins(value, path, mistakes)
