"""Fleet files: what the nodes' kernels and devices are, collected over Ansible or on this machine, written and read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kanctl.errors import KanctlError, NodeUnreachableError
from kanctl.inventory import Cluster, Node
from kanctl.kernel.errors import FleetInvalid

from ..context import playbooks_dir
from ..output import print_note
from ..playbook_code import load_playbook_code

FORMAT = "kanctl-fleet-1"
# Keys that every node's facts must have; docs/kernel.md describes all.
KEYS = {"machine", "release", "config", "cmdline", "modprobe", "devices", "loaded", "parameters"}


def collect_fleet(cluster: Cluster, nodes: tuple[Node, ...]) -> dict[str, Any]:
    """The fleet document of nodes, by the playbook kernel-facts.yml. Changes nothing and needs no root.

    Raises:
        NodeUnreachableError: a node did not answer.
        KanctlError: the playbook failed on a node.
    """
    from ..run_ansible import run_playbook

    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    unreachable: dict[str, str] = {}

    def take(event: dict[str, Any]) -> None:
        data = event.get("event_data", {})
        result = data.get("res") or {}
        if "kernel_facts" in result:
            found[data["host"]] = result["kernel_facts"]
        elif event.get("event") == "runner_on_unreachable":
            unreachable[data["host"]] = str(result.get("msg", ""))
        elif event.get("event") == "runner_on_failed":
            failed[data["host"]] = str(result.get("msg", ""))

    print_note(f"asking {len(nodes)} nodes for their kernel and devices")
    names = [node.name for node in nodes]
    status = run_playbook(playbooks_dir() / "kernel-facts.yml", cluster.path, on_event=take, limit=names)
    if status == "canceled":
        raise KeyboardInterrupt
    if unreachable:
        listed = "\n  ".join(f"{name}: {message}" for name, message in unreachable.items())
        raise NodeUnreachableError(f"{len(unreachable)} nodes did not answer:\n  {listed}", "kanctl health check")
    missing = [name for name in names if name not in found]
    if missing:
        listed = "\n  ".join(f"{name}: {failed.get(name, 'no answer')}" for name in missing)
        raise KanctlError(f"{len(missing)} nodes gave no facts:\n  {listed}")
    return fleet_document({name: found[name] for name in names})


def collect_here() -> dict[str, Any]:
    """The fleet document of this machine alone, under the name `localhost`."""
    return fleet_document({"localhost": load_playbook_code("library/kanctl_kernel_facts.py").collect()})


def fleet_document(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """A fleet file's content."""
    return {"format": FORMAT, "nodes": dict(nodes)}


def write_fleet(fleet: Mapping[str, Any], path: Path) -> None:
    """Write a fleet file, whole or not at all."""
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(json.dumps(fleet, indent=1) + "\n")
    scratch.replace(path)


def read_fleet(path: Path) -> dict[str, Any]:
    """A fleet file's content. Raises FleetInvalid with what is wrong and where."""
    step = f"collect it again: kanctl kernel modules --write-fleet {path}"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FleetInvalid(f"the fleet file {path} cannot be read: {error}", step) from error
    except json.JSONDecodeError as error:
        raise FleetInvalid(f"the fleet file {path} is not JSON: {error}", step) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise FleetInvalid(f"wanted a fleet file of the format {FORMAT} in {path}, found {found}", step)
    nodes = document.get("nodes")
    if not isinstance(nodes, dict) or not nodes:
        raise FleetInvalid(f"the fleet file {path} names no node", step)
    wrong = [
        f"{name} lacks {', '.join(sorted(KEYS - set(facts)))}" if isinstance(facts, dict) else f"{name} is no object"
        for name, facts in nodes.items()
        if not isinstance(facts, dict) or not set(facts) >= KEYS
    ]
    if wrong:
        raise FleetInvalid(f"the fleet file {path} is not whole: {'; '.join(wrong)}", step)
    return document
