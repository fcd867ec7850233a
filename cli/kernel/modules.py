"""`kanctl kernel modules`: the smallest set of modules that serves a fleet, and the devices a node would lose."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanctl.inventory import Cluster, Node
from kanctl.kernel.fleet.resolve import Need, names_of
from kanctl.kernel.prepare import Prepared, prepare
from kanctl.kernel.profile import load_profile

from ..output import print_note
from .config import fleet_document, fleet_of
from .facts import collect_fleet, collect_here, read_fleet, write_fleet
from .place import source_tree, work_dir

# The order in which kinds of reasons are shown: the strongest first.
KINDS = ("device", "child", "loaded", "policy", "dependency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where the facts come from: a file, this machine, or the nodes of a cluster."""

    file: Path | None = None
    local: bool = False
    cluster: Cluster | None = None
    nodes: tuple[Node, ...] = ()


def gather(where: Where, write_to: Path | None) -> dict[str, Any]:
    """The fleet document, and its file where one is wanted."""
    if where.file is not None:
        fleet = read_fleet(where.file)
    elif where.local:
        fleet = collect_here()
    else:
        assert where.cluster is not None
        fleet = collect_fleet(where.cluster, where.nodes)
    if write_to is not None:
        write_fleet(fleet, write_to)
        print_note(f"fleet file: {write_to}")
    return fleet


def resolve_modules(fleet: dict[str, Any], profile_name: str, source: str | None) -> Prepared:
    """A profile configured for the fleet, which is how the promise is judged. Nothing is compiled."""
    profile = load_profile(profile_name)
    tree = source_tree(source, kconfig_only=True)
    output = work_dir(profile.name, tree.version) / "modules"
    return prepare(profile, tree, output, fleet=fleet_of(fleet["nodes"], tree), report=print_note)


def rows(prepared: Prepared) -> list[tuple[str, str, str, str]]:
    """A table's rows: module, symbol, kind of reason, reason."""
    assert prepared.fleet is not None
    chosen = prepared.fleet.chosen
    symbol_of = {module: symbol for symbol, modules in chosen.symbols.items() for module in modules}
    listed = sorted(chosen.modules.items(), key=lambda item: (KINDS.index(item[1].kind), item[0]))
    config = prepared.config
    return [
        (module, _with_value(symbol_of.get(module, "-"), config), need.kind, _reason(need)) for module, need in listed
    ]


def lines(prepared: Prepared) -> list[str]:
    """What stands below the table: counts, what is left out, and the promise."""
    fleet = prepared.fleet
    assert fleet is not None
    return [
        f"{len(fleet.chosen.modules)} modules of {len(fleet.chosen.symbols)} symbols; {len(fleet.parents.added)} lines "
        f"for the fleet in {prepared.output}/fleet.config",
        *(f"denied: {module}: {why}" for module, why in fleet.chosen.denied.items()),
        *(f"left out: {symbol}: {why}" for symbol, why in fleet.parents.impossible.items()),
        *(f"the profile yields: {line}" for line in fleet.overlay.overruled),
        *(f"from elsewhere: {module} on {names_of(nodes)}" for module, nodes in fleet.chosen.out_of_tree.items()),
        *(
            f"unknown: {loss.node} {loss.device} ({loss.driver}): {loss.why}"
            for loss in fleet.promise.losses
            if not loss.stops
        ),
        f"promise: {fleet.promise.kept} devices keep their driver, {len(fleet.promise.broken)} would be lost",
    ]


def document(prepared: Prepared) -> dict[str, Any]:
    """The answer as one JSON object."""
    return {
        "profile": prepared.profile.name,
        "version": prepared.tree.version,
        "fragment_file": str(prepared.output / "fleet.config"),
        **(fleet_document(prepared) or {}),
    }


def _with_value(symbol: str, config: dict[str, str]) -> str:
    return f"{symbol}={config.get(symbol, 'n')}" if symbol != "-" else "-"


def _reason(need: Need) -> str:
    return f"{need.why} ({names_of(need.nodes)})" if need.nodes else need.why
