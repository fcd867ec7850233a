"""Writes a commented inventory from flags or from answers on the terminal; what it writes passes `inventory check`."""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from kanctl.errors import BadInputError, KanctlError
from kanctl.inventory.checks import NODE_NAME
from kanctl.inventory.errors import InventoryInvalid, Mistake
from kanctl.inventory.load import load_cluster
from kanctl.inventory.variables import check_variable, known_variables

from .context import playbooks_dir
from .output import print_note

# What gives None for a good answer, else what is wrong with it.
Judge = Callable[[str], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInventory:
    """What the file will say; `nodes` are (name, address) pairs, `gpus` is MODEL:COUNT[:MEMORY_GIB] of every node."""

    nodes: tuple[tuple[str, str], ...]
    cluster: str = "cluster"
    user: str = "root"
    key: str | None = None
    shared_dir: str | None = None
    gpus: str | None = None


def parse_nodes(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`node1=10.0.0.11` words as pairs. Raises BadInputError."""
    pairs = [word.partition("=") for word in words]
    wrong = [word for word, (name, sign, address) in zip(words, pairs, strict=True) if not (name and sign and address)]
    if wrong:
        raise BadInputError(f"wanted --node NAME=ADDRESS, found {', '.join(wrong)}", "--node node1=10.0.0.11")
    return tuple((name, address) for name, _, address in pairs)


def ask_for_missing(given: NewInventory) -> NewInventory:
    """Fill in by questions what the flags left open. Raises BadInputError when there is no terminal to ask on."""
    if given.nodes:
        return given
    if not sys.stdin.isatty():
        raise BadInputError("wanted at least one --node NAME=ADDRESS, found none", "--node node1=10.0.0.11")
    nodes: list[tuple[str, str]] = []
    while address := _ask(f"address of node {len(nodes) + 1} (empty: no more)", "", _judge("ansible_host")):
        nodes.append((_ask("  its name", f"node{len(nodes) + 1}", _name_judge([name for name, _ in nodes])), address))
    if not nodes:
        raise BadInputError("an inventory needs at least one node; nothing was written")
    return NewInventory(
        nodes=tuple(nodes),
        cluster=_ask("name of the cluster", given.cluster, _judge("kanctl_cluster_name")),
        user=_ask("user that SSH logs in as", given.user, _judge("ansible_user")),
        key=_ask("private key file (empty: ssh's default)", given.key or "", _judge("ansible_ssh_private_key_file"))
        or None,
        shared_dir=_ask(
            "folder that all nodes share (empty: none)", given.shared_dir or "", _judge("kanctl_shared_dir")
        )
        or None,
        gpus=_ask("GPUs of each node as MODEL:COUNT:MEMORY_GIB (empty: none)", given.gpus or "", _judge_gpus) or None,
    )


def inventory_text(new: NewInventory) -> str:
    """The YAML of hosts.yml. Raises BadInputError for GPUs in another form than MODEL:COUNT[:MEMORY_GIB]."""
    lines = [
        "---",
        "# The nodes of this cluster: an ordinary Ansible inventory. `kanctl inventory check` reads it;",
        "# docs/inventory.md lists every variable. Your own variables begin with site_.",
        "all:",
        "  vars:",
        f"    kanctl_cluster_name: {_scalar(new.cluster)}",
        "    # The login must be root, or may use sudo without a password.",
        f"    ansible_user: {_scalar(new.user)}",
        *(["    ansible_become: true"] if new.user != "root" else []),
        *([f"    ansible_ssh_private_key_file: {_scalar(new.key)}"] if new.key else []),
        "    # Named here so that no version manager's shim is picked up instead.",
        "    ansible_python_interpreter: /usr/bin/python3",
        "    # A folder that all nodes share, for corpora, runs and checkpoints; needed to train on several nodes.",
        f"    {'' if new.shared_dir else '# '}kanctl_shared_dir: {_scalar(new.shared_dir or '/srv/kanctl')}",
        *_gpu_lines(new.gpus),
        "  children:",
        "    nodes:",
        "      hosts:",
        "        # The first node is where the processes of a run meet.",
    ]
    for name, address in new.nodes:
        lines += [f"        {_scalar(name)}:", f"          ansible_host: {_scalar(address)}"]
    return "\n".join(lines) + "\n"


def write_inventory(new: NewInventory, output: Path, *, force: bool) -> None:
    """Write and check the file, whole or not at all.

    Raises:
        KanctlError: when it is there already or cannot be written.
        InventoryInvalid: for wrong answers, and for what group_vars and host_vars beside it say.
    """
    refuse_to_overwrite(output, force=force)
    text = inventory_text(new)
    new_folders = [folder for folder in output.parents if not os.path.lexists(folder)]
    partial = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        load_cluster(partial, roles_dir=playbooks_dir() / "roles")
        os.replace(partial, output)
    except OSError as error:
        raise KanctlError(f"{output} cannot be written: {error.strerror}", "another --output") from error
    except InventoryInvalid as error:
        raise InventoryInvalid(output, [_at_home(mistake, partial, output) for mistake in error.mistakes]) from error
    finally:
        _remove_if_there(partial, [] if os.path.lexists(output) else new_folders)


def refuse_to_overwrite(output: Path, *, force: bool) -> None:
    """Raises KanctlError when the file is there already; before any question is asked."""
    # os.path answers False where pathlib raises; writing then says what is wrong with the place.
    if os.path.isdir(output):
        raise KanctlError(f"wanted a file to write, found the folder {output}", f"--output {output / 'hosts.yml'}")
    if os.path.lexists(output) and not force:
        raise KanctlError(f"{output} is there already", "--force to write over it, or another --output")


def plain_key(key: str | None) -> str | None:
    """A key's path that means the same wherever kanctl is started."""
    return key if key is None or key.startswith("~") else str(Path(key).absolute())


def _remove_if_there(partial: Path, folders: Sequence[Path]) -> None:
    """What a failed attempt made; a folder that somebody else has put something into meanwhile stays."""
    # A parent that is a file, or may not be entered, holds nothing of ours.
    with suppress(OSError):
        partial.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()


def _at_home(mistake: Mistake, partial: Path, output: Path) -> Mistake:
    return replace(mistake, file=output) if mistake.file == partial else mistake


def _scalar(value: str) -> str:
    """Text as YAML reads it back: plain where that is safe, in quotes where not."""
    is_plain = re.fullmatch(r"[A-Za-z0-9/~][A-Za-z0-9._/ -]*[A-Za-z0-9]|[A-Za-z0-9/]", value)
    return value if is_plain and yaml.safe_load(value) == value else json.dumps(value)


def _gpu_lines(gpus: str | None) -> list[str]:
    if gpus is None:
        return [
            "    # GPUs of every node; those that differ get the same key below their name.",
            "    # kanctl_gpus: [{model: NVIDIA H200, count: 8, memory_gib: 141}]",
        ]
    problem = _judge_gpus(gpus)
    if problem:
        raise BadInputError(f"--gpus: {problem}", "--gpus 'NVIDIA H200:8:141'")
    model, *numbers = [part.strip() for part in gpus.split(":")]
    memory = f", memory_gib: {int(numbers[1])}" if len(numbers) == 2 else ""
    return [f"    kanctl_gpus: [{{model: {_scalar(model)}, count: {int(numbers[0])}{memory}}}]"]


def _judge_gpus(text: str) -> str | None:
    model, *numbers = [part.strip() for part in text.split(":")]
    is_right = model and 1 <= len(numbers) <= 2 and all(re.fullmatch("[0-9]{1,9}", number) for number in numbers)
    return None if is_right else f"wanted MODEL:COUNT[:MEMORY_GIB], numbers without a unit, found {text!r}"


def _judge(variable: str) -> Judge:
    known = known_variables(None)
    return lambda text: check_variable(variable, text, known)


def _name_judge(taken: Sequence[str]) -> Judge:
    def judge(text: str) -> str | None:
        if text in taken:
            return f"{text} is the name of another node"
        return None if NODE_NAME.fullmatch(text) else f"{text!r}: wanted letters, digits and hyphens, at most 63"

    return judge


def _ask(question: str, default: str, judge: Judge) -> str:
    """An answer that `judge` accepts; the default, and the end of the input, are taken as they are."""
    while True:
        print_note(f"{question}{f' [{default}]' if default else ''}: ")
        line = sys.stdin.readline()
        answer = line.strip() or default
        problem = judge(answer) if answer and line else None
        if problem is None:
            return answer
        print_note(f"  {problem}")
