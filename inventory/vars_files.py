"""The files of group_vars/ and host_vars/ beside hosts.yml, found as Ansible finds them.

Source: `find_vars_files` of ansible/parsing/dataloader.py. Of NAME, NAME.yml, NAME.yaml and NAME.json only the first
that exists is read, and a folder is searched with its subfolders.
"""

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import Mistake
from .yaml_lines import Entry, Opaque, entries, keys_that_are_no_text, read_yaml

_ENDINGS = ("", ".yml", ".yaml", ".json")


def read_variables(folder: Path, names: Iterable[str], mistakes: list[Mistake]) -> dict[str, dict[str, Entry]]:
    """The variables that `folder` holds for each of `names`, which are groups or hosts."""
    try:
        return {name: _read_variables_of(folder, name, mistakes) for name in names} if folder.is_dir() else {}
    except OSError as error:
        text = f"wanted a folder that you may read: {error.strerror}"
        mistakes.append(Mistake(file=Path(error.filename or folder), line=1, text=text))
        return {}


def check_file_names(folder: Path, groups: Iterable[str]) -> Iterator[Mistake]:
    """Files of group_vars that belong to no group and look like one that has none: Ansible would skip them silently.

    Other names are left alone, since several inventories may share the folder.
    """
    found = {path.stem: path for path in sorted(folder.glob("*")) if path.suffix in _ENDINGS and path.name[0] != "."}
    without = [group for group in groups if group not in found]
    for name in found.keys() - set(groups):
        near = difflib.get_close_matches(name, without, n=1, cutoff=0.8)
        if near:
            text = f"wanted the name of a group, found {name}; the nearest group is {near[0]}"
            yield Mistake(file=found[name], line=1, text=text)


def _read_variables_of(folder: Path, name: str, mistakes: list[Mistake]) -> dict[str, Entry]:
    # A host's name may be anything until it has been checked, also a path or too long for a file name.
    if "/" in name or "\0" in name or len(name) > 200:
        return {}
    there = [path for ending in _ENDINGS if (path := folder / f"{name}{ending}").exists()]
    if len(there) > 1:
        text = f"wanted one place for {name}, found {there[1].name} too, which Ansible does not read"
        mistakes.append(Mistake(file=there[0], line=1, text=text))
    merged: dict[str, Entry] = {}
    for path in there[:1]:
        for file in _files_of(path) if path.is_dir() else [path]:
            merged |= _read_file(file, mistakes)
    return merged


def _files_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir() and not path.suffix:
            yield from _files_of(path)
        elif path.is_file() and path.suffix in _ENDINGS:
            yield path


def _read_file(path: Path, mistakes: list[Mistake]) -> dict[str, Entry]:
    entry = read_yaml(path, mistakes)
    if entry is None or isinstance(entry.value, Opaque):
        return {}
    if not isinstance(entry.value, dict):
        mistakes.append(entry.mistake("wanted variables as `name: value` lines"))
    mistakes += keys_that_are_no_text(entry)
    return entries(entry)
