"""YAML read with the line of every key, so that a mistake can be shown where it stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import Mistake

_VAULT_FILE = "$ANSIBLE_VAULT;"
_TEXT_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key's value with the place of the key; `node` is for looking deeper with the same care."""

    value: Any
    file: Path
    line: int
    node: yaml.Node | None = None

    def mistake(self, text: str) -> Mistake:
        """A mistake at this place."""
        return Mistake(file=self.file, line=self.line, text=text)


class Opaque(str):
    """A value that only Ansible can read, such as one kept in a vault; its content is not checked."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Plain YAML plus Ansible's tags for values that are not ours to read."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A node's value; what looks like a date or a number and is none gets a place, which PyYAML leaves out."""
        try:
            return super().construct_object(node, deep=deep)
        # PyYAML trusts an explicit tag: `!!bool x` is its KeyError, `!!int ""` an IndexError, `!!timestamp x` the last.
        except (ValueError, LookupError, AttributeError) as error:
            word = getattr(node, "value", "")
            problem = f"{word!r} is no value of the kind {node.tag.rpartition(':')[2]}; text goes in quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _construct_opaque(loader: yaml.SafeLoader, node: yaml.Node) -> Opaque:
    return Opaque(loader.construct_scalar(node))  # type: ignore[arg-type]  # refuses other nodes by itself


for _tag in ("!vault", "!vault-encrypted", "!unsafe"):
    _Loader.add_constructor(_tag, _construct_opaque)


def read_yaml(path: Path, mistakes: list[Mistake]) -> Entry | None:
    """A file's top value; None when it is empty or cannot be read, with the reason added to `mistakes`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        mistakes.append(Mistake(file=path, line=1, text=f"wanted a readable YAML file: {reason}"))
        return None
    if text.startswith(_VAULT_FILE):
        return Entry(value=Opaque(text), file=path, line=1)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        mistakes += _twins(node, path, set())
        return Entry(value=loader.construct_document(node), file=path, line=1, node=node)
    except (yaml.YAMLError, RecursionError) as error:
        mistakes.append(_wrong_yaml(path, text, error))
        return None


def entries(entry: Entry) -> dict[str, Entry]:
    """The keys of a mapping with their places; empty for anything else. Merge keys (<<) are already merged in."""
    if not isinstance(entry.node, yaml.MappingNode) or not isinstance(entry.value, dict):
        return {}
    places = {str(key.value): (key, value) for key, value in entry.node.value}
    if len(entry.node.value) == len(entry.value):
        # Also right for a key that YAML reads as something else than what is written.
        places |= dict(zip(map(str, entry.value), entry.node.value, strict=True))
    found = {}
    for key, value in entry.value.items():
        key_node, value_node = places.get(str(key), (entry.node, None))
        found[str(key)] = Entry(value=value, file=entry.file, line=key_node.start_mark.line + 1, node=value_node)
    return found


def items(entry: Entry) -> list[Entry]:
    """The items of a list with their places; empty for anything else."""
    if not isinstance(entry.node, yaml.SequenceNode) or not isinstance(entry.value, list):
        return []
    return [
        Entry(value=value, file=entry.file, line=node.start_mark.line + 1, node=node)
        for value, node in zip(entry.value, entry.node.value, strict=True)
    ]


def keys_that_are_no_text(entry: Entry) -> Iterator[Mistake]:
    """Names that YAML reads as a number, a truth value or a list; Ansible refuses them."""
    if not isinstance(entry.node, yaml.MappingNode):
        return
    for key, _ in entry.node.value:
        if key.tag != _TEXT_TAG:
            word = key.value if isinstance(key, yaml.ScalarNode) else "this"
            kind = key.tag.rpartition(":")[2]
            text = f"YAML reads {word} as {kind}; wanted a name, in quotes if it is one"
            yield Mistake(file=entry.file, line=key.start_mark.line + 1, text=text)


def _wrong_yaml(path: Path, text: str, error: Exception) -> Mistake:
    line, problem = 1, str(error)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = error.problem or "wrong YAML"
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        problem = f"a character that YAML does not allow, {error.character:#x}"
    elif isinstance(error, RecursionError):
        problem = "values are nested too deeply"
    if "'\\t'" in problem:
        problem = "a tab where YAML wants spaces"
    return Mistake(file=path, line=line, text=f"wanted YAML: {problem}")


def _twins(node: yaml.Node, path: Path, seen: set[int]) -> list[Mistake]:
    """Name keys that stand twice in one mapping: YAML would silently take the last."""
    # An anchor may hold an alias of itself, so each node is looked at once.
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return []
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [mistake for item in node.value for mistake in _twins(item, path, seen)]
    found = []
    first_lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in first_lines:
                text = f"{key.value} stands here and in line {first_lines[key.value]}; wanted it once"
                found.append(Mistake(file=path, line=line, text=text))
            first_lines.setdefault(key.value, line)
        found += _twins(value, path, seen)
    return found
