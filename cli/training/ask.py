"""Asking a module of the trainer where the run is: its words, its progress as notes, its one document."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kanctl.errors import KanctlError

from ..output import print_note
from .place import Place


def option_words(options: Mapping[str, object]) -> list[str]:
    """Arguments of a module: those without a value (None, False, empty) are left out, a True has none, a list many."""
    words: list[str] = []
    for key, value in options.items():
        if value is True:
            words.append(f"--{key}")
        elif isinstance(value, list | tuple):
            words += [f"--{key}={each}" for each in value]
        elif value is not None and value is not False:
            words.append(f"--{key}={value}")
    return words


def ask_module(place: Place, module: str, words: Sequence[str]) -> dict[str, Any]:
    """The module's document, which is one line; every other line is a note. Raises KanctlError when there is none."""
    result = None
    for line in place.stream_module(module, words):
        if line.startswith("{"):
            result = json.loads(line)
        else:
            print_note(line)
    if result is None:
        raise KanctlError(f"{module} on {place.name} ended without an answer", "run it again; its words are above")
    return dict(result)
