"""The way from a profile (and a fleet) to a verified .config: configure, find parents, configure again, verify, judge.

An edge file as far as it runs configure.py; what each step means is written where it is done. Nothing is compiled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import dotconfig
from .configure import configure
from .errors import FleetInvalid
from .fleet.fragment import Overlay, fleet_requests, overlay, render
from .fleet.policy import Policy
from .fleet.promise import Promise, judge
from .fleet.reference import Reference
from .fleet.resolve import Selection, is_for_device, select
from .fleet.satisfy import Parents, find_parents
from .fragment import Request
from .kconfig import KconfigTree
from .profile import Profile
from .source import SourceTree
from .verify import Verification, load_renames, verify

Finish = Callable[[Mapping[str, Request]], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a kernel is made for: the nodes' facts, and the reference kernel that reads their aliases."""

    nodes: Mapping[str, Mapping[str, Any]]
    reference: Reference
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult:
    """What the fleet asked of the kernel, and whether it gets it."""

    chosen: Selection
    parents: Parents
    overlay: Overlay
    promise: Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A finished configuration with everything that is known of it."""

    profile: Profile
    tree: SourceTree
    output: Path
    text: str
    verification: Verification
    fleet: FleetResult | None

    @property
    def config(self) -> dict[str, str]:
        """Symbol -> value."""
        return dotconfig.parse(self.text)

    @property
    def requests(self) -> dict[str, Request]:
        """Symbol -> request, those of the fleet included."""
        return {line.request.symbol: line.request for line in self.verification.lines}


def prepare(
    profile: Profile,
    tree: SourceTree,
    output: Path,
    *,
    fleet: Fleet | None = None,
    finish: Finish = lambda _requests: {},
    report: Callable[[str], None],
) -> Prepared:
    """Configure a profile for a tree, in `output`, and verify every requested line.

    Args:
        finish: gives the lines of the build itself (the kernel's name) once all requests are known.

    Raises:
        FragmentInvalid: the fragments contradict one another.
        FleetInvalid: a node of the fleet has another architecture.
        MissingToolError, ProgramFailed: see configure.
    """
    requests: Mapping[str, Request] = profile.requests(tree.numbers)
    report(f"configuring {profile.name} for {tree.version}: {len(requests)} requested lines")
    text = configure(tree, output, requests, finish(requests))
    found = None
    if fleet is not None:
        requests, text, found = _add_fleet(requests, tree, output, fleet, finish, report)
    verification = verify(
        tree.version,
        requests,
        dotconfig.parse(text),
        profile.waived(tree.numbers),
        lambda: KconfigTree(tree.path, tree.version, output / ".config"),
        load_renames(),
    )
    return Prepared(profile=profile, tree=tree, output=output, text=text, verification=verification, fleet=found)


def _add_fleet(
    requests: Mapping[str, Request],
    tree: SourceTree,
    output: Path,
    fleet: Fleet,
    finish: Finish,
    report: Callable[[str], None],
) -> tuple[Mapping[str, Request], str, FleetResult]:
    require_architecture(fleet.nodes)
    chosen = select(fleet.nodes, fleet.reference, fleet.policy)
    report(f"{len(fleet.nodes)} nodes need {len(chosen.modules)} modules of {len(chosen.symbols)} symbols")
    explainer = KconfigTree(tree.path, tree.version, output / ".config")
    parents = find_parents(explainer, _limits(chosen, requests, fleet.reference))
    laid = overlay(requests, fleet_requests(chosen, parents), chosen, parents)
    (output / "fleet.config").write_text(render(fleet_requests(chosen, parents)))
    report(f"configuring again with {len(laid.requests) - len(requests)} lines of the fleet")
    text = configure(tree, output, laid.requests, finish(laid.requests))
    promise = judge(fleet.nodes, fleet.reference, fleet.policy, dotconfig.parse(text))
    return laid.requests, text, FleetResult(chosen=chosen, parents=parents, overlay=laid, promise=promise)


def _limits(chosen: Selection, requests: Mapping[str, Request], reference: Reference) -> dict[str, set[str]]:
    """Symbol -> what may not be switched on for it: denied drivers, and but for devices, the profile's `n`."""
    denied = {symbol for name in chosen.denied for symbol in reference.symbols.get(name, ())}
    off = denied | {symbol for symbol, request in requests.items() if request.value == "n"}
    return {symbol: denied if is_for_device(chosen, symbol) else off for symbol in chosen.symbols}


def require_architecture(nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises FleetInvalid where a node is no x86-64 machine: kanctl builds for that alone."""
    other = {name: facts["machine"] for name, facts in nodes.items() if facts["machine"] != "x86_64"}
    if other:
        listed = ", ".join(f"{name} is {machine}" for name, machine in other.items())
        raise FleetInvalid(
            f"wanted nodes with x86_64, found: {listed}", "leave them out with --limit when collecting the fleet file"
        )
