"""Writes a commented inventory from flags or from answers on the terminal; what it writes passes `inventory check`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kanctl.errors import BadInputError, KanctlError
from kanctl.inventory.load import load_cluster

from .context import playbooks_dir
from .output import print_note


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
    while address := _ask(f"address of node {len(nodes) + 1} (empty: no more)", ""):
        nodes.append((_ask("  its name", f"node{len(nodes) + 1}"), address))
    if not nodes:
        raise BadInputError("an inventory needs at least one node; nothing was written")
    return NewInventory(
        nodes=tuple(nodes),
        cluster=_ask("name of the cluster", given.cluster),
        user=_ask("user that SSH logs in as", given.user),
        key=_ask("private key file (empty: ssh's default)", given.key or "") or None,
        shared_dir=_ask("folder that all nodes share (empty: none)", given.shared_dir or "") or None,
        gpus=_ask("GPUs of each node as MODEL:COUNT:MEMORY_GIB (empty: none)", given.gpus or "") or None,
    )


def inventory_text(new: NewInventory) -> str:
    """The YAML of hosts.yml. Raises BadInputError for GPUs in another form than MODEL:COUNT[:MEMORY_GIB]."""
    lines = [
        "# The nodes of this cluster: an ordinary Ansible inventory. `kanctl inventory check` reads it;",
        "# docs/inventory.md lists every variable. Your own variables begin with site_.",
        "all:",
        "  vars:",
        f"    kanctl_cluster_name: {new.cluster}",
        "    # The login must be root, or may use sudo without a password.",
        f"    ansible_user: {new.user}",
        *(["    ansible_become: true"] if new.user != "root" else []),
        *([f"    ansible_ssh_private_key_file: {new.key}"] if new.key else []),
        "    # Named here so that no version manager's shim is picked up instead.",
        "    ansible_python_interpreter: /usr/bin/python3",
        "    # A folder that all nodes share, for corpora, runs and checkpoints; needed to train on several nodes.",
        f"    {'' if new.shared_dir else '# '}kanctl_shared_dir: {new.shared_dir or '/srv/kanctl'}",
        *_gpu_lines(new.gpus),
        "  children:",
        "    nodes:",
        "      hosts:",
        "        # The first node is where the processes of a run meet.",
    ]
    for name, address in new.nodes:
        lines += [f"        {name}:", f"          ansible_host: {address}"]
    return "\n".join(lines) + "\n"


def write_inventory(new: NewInventory, output: Path, *, force: bool) -> None:
    """Write and check the file. Raises KanctlError when it is there already, InventoryInvalid for wrong answers."""
    if output.exists() and not force:
        raise KanctlError(f"{output} is there already", "--force to write over it, or another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.name}.part")
    try:
        partial.write_text(inventory_text(new))
        load_cluster(partial, roles_dir=playbooks_dir() / "roles")
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def _gpu_lines(gpus: str | None) -> list[str]:
    if gpus is None:
        return [
            "    # GPUs of every node; those that differ get the same key below their name.",
            "    # kanctl_gpus: [{model: NVIDIA H200, count: 8, memory_gib: 141}]",
        ]
    model, *numbers = [part.strip() for part in gpus.split(":")]
    if not model or not 1 <= len(numbers) <= 2 or not all(number.isdigit() for number in numbers):
        raise BadInputError(f"wanted --gpus MODEL:COUNT[:MEMORY_GIB], found {gpus!r}", "--gpus 'NVIDIA H200:8:141'")
    memory = f", memory_gib: {numbers[1]}" if len(numbers) == 2 else ""
    return [f"    kanctl_gpus: [{{model: {model}, count: {numbers[0]}{memory}}}]"]


def _ask(question: str, default: str) -> str:
    print_note(f"{question}{f' [{default}]' if default else ''}: ")
    return sys.stdin.readline().strip() or default
