"""The steps of a playbook, read from its files so that they can be shown, and asked for, before anything runs."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kanctl.errors import BadInputError

# Tags that Ansible gives a meaning of its own.
SPECIAL = ("all", "tagged", "untagged", "always", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A role as a play lists it; roles that it depends on in turn are not named."""

    name: str
    tags: tuple[str, ...]


def read_steps(playbook: Path) -> tuple[Step, ...]:
    """The roles of a playbook and of those that it imports, in their order."""
    steps: list[Step] = []
    for play in yaml.safe_load(playbook.read_text()) or []:
        imported = play.get("import_playbook", play.get("ansible.builtin.import_playbook"))
        if imported is not None:
            steps += read_steps(playbook.parent / imported)
        for role in play.get("roles", []):
            entry = role if isinstance(role, dict) else {"role": role}
            name = str(entry.get("role", entry.get("name")))
            steps.append(Step(name=name, tags=(*_tags(play), *_tags(entry))))
    return tuple(steps)


def select_steps(steps: Sequence[Step], tags: Sequence[str]) -> tuple[Step, ...]:
    """The steps that --tags leaves, all without any.

    Raises:
        BadInputError: for a tag that no step has; Ansible itself would do nothing, and call it success.
    """
    known = {tag for step in steps for tag in step.tags}
    wrong = [tag for tag in tags if tag not in known and tag not in SPECIAL]
    if wrong:
        near = difflib.get_close_matches(wrong[0], known, n=1)
        meant = f"did you mean {near[0]}?" if near else ""
        raise BadInputError(f"--tags names {', '.join(wrong)}; the steps have {', '.join(sorted(known))}", meant)
    if not tags or set(tags) & {"all", "tagged"}:
        return tuple(steps)
    return tuple(step for step in steps if set(step.tags) & {*tags, "always"})


def _tags(entry: dict[str, Any]) -> tuple[str, ...]:
    tags = entry.get("tags", [])
    return tuple(tags.split(",") if isinstance(tags, str) else map(str, tags))
