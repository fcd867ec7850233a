"""`kanctl kernel config`: a profile (and a fleet) made into a verified configuration, each line's end explained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanctl.errors import CheckFailedError
from kanctl.kernel.errors import ConfigUnexplained, DeviceLost
from kanctl.kernel.fleet.policy import read_policy
from kanctl.kernel.fleet.reference import read_reference
from kanctl.kernel.prepare import Fleet, Prepared, prepare
from kanctl.kernel.profile import load_profile
from kanctl.kernel.profile_check import check_prepared
from kanctl.kernel.rules import Violation, refusal
from kanctl.kernel.source import SourceTree
from kanctl.kernel.verify import Line, Verification

from ..output import print_note
from .facts import read_fleet
from .place import source_tree, stock_kernel, work_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReport:
    """One configuration, and the same profile checked against other versions."""

    prepared: Prepared
    forward: tuple[Verification, ...] = ()
    # Rules of kernel/rules.toml that only warn this time.
    force: tuple[str, ...] = ()

    def violations(self) -> tuple[Violation, ...]:
        """The rules that the configuration breaks."""
        return check_prepared(self.prepared, force=self.force)


def configure_profile(
    profile_name: str,
    source: str | None,
    fleet_file: Path | None,
    forward: Sequence[str],
    out: Path | None,
    force: Sequence[str] = (),
) -> ConfigReport:
    """Configure and verify a profile; nothing is compiled. Raises the errors of kernel.prepare."""
    profile = load_profile(profile_name)
    tree = source_tree(source, kconfig_only=True)
    output = out or work_dir(profile.name, tree.version) / "config"
    prepared = prepare(profile, tree, output, fleet=load_fleet(fleet_file, tree), report=print_note)
    ahead = []
    for series in forward:
        other = source_tree(series, kconfig_only=True)
        folder = work_dir(profile.name, other.version) / "config"
        ahead.append(prepare(profile, other, folder, report=print_note).verification)
    return ConfigReport(prepared=prepared, forward=tuple(ahead), force=tuple(force))


def load_fleet(path: Path | None, tree: SourceTree) -> Fleet | None:
    """The nodes of a fleet file with what reads their aliases; None without a file."""
    return None if path is None else fleet_of(read_fleet(path)["nodes"], tree)


def fleet_of(nodes: Mapping[str, Mapping[str, Any]], tree: SourceTree) -> Fleet:
    """Nodes with the policy and the reference kernel of the tree's series: the distribution's own, which has all."""
    policy = read_policy()
    stock = stock_kernel(".".join(map(str, tree.numbers[:2])))
    reference = read_reference(stock.modules, tree.path, stock.release, policy.symbols)
    return Fleet(nodes=nodes, reference=reference, policy=policy)


def document(report: ConfigReport) -> dict[str, Any]:
    """The answer as one JSON object."""
    prepared = report.prepared
    config = prepared.config
    return {
        "profile": prepared.profile.name,
        "version": prepared.tree.version,
        "config_file": str(prepared.output / ".config"),
        "builtin_count": sum(value == "y" for value in config.values()),
        "module_count": sum(value == "m" for value in config.values()),
        "lines": [line_document(line) for line in prepared.verification.lines],
        "idle_waivers": list(prepared.verification.idle_waivers),
        "rules": [
            {"rule": row.rule.name, "severity": str(row.severity), "text": row.text} for row in report.violations()
        ],
        "fleet": fleet_document(prepared),
        "forward": [
            {
                "version": ahead.version,
                "lines": [line_document(line) for line in ahead.lines if line.outcome != "taken"],
            }
            for ahead in report.forward
        ],
    }


def line_document(line: Line) -> dict[str, str]:
    """One requested line and its end."""
    return {
        "symbol": line.request.symbol,
        "wanted": line.request.value,
        "found": line.found,
        "outcome": str(line.outcome),
        "why": line.why,
        "waiver": line.waiver,
        "place": line.request.place,
        "reason": line.request.reason,
    }


def fleet_document(prepared: Prepared) -> dict[str, Any] | None:
    """What the fleet asked for and whether it gets it; None without a fleet."""
    fleet = prepared.fleet
    if fleet is None:
        return None
    return {
        "modules": {
            name: {"kind": need.kind, "why": need.why, "nodes": list(need.nodes)}
            for name, need in fleet.chosen.modules.items()
        },
        "symbols": {symbol: list(modules) for symbol, modules in fleet.chosen.symbols.items()},
        "added": dict(fleet.parents.added),
        "left_out": dict(fleet.parents.impossible),
        "overruled": list(fleet.overlay.overruled),
        "kept_off": list(fleet.overlay.kept_off),
        "denied": dict(fleet.chosen.denied),
        "out_of_tree": {module: list(nodes) for module, nodes in fleet.chosen.out_of_tree.items()},
        "devices_kept": fleet.promise.kept,
        "losses": [
            {"node": loss.node, "device": loss.device, "driver": loss.driver, "why": loss.why, "stops": loss.stops}
            for loss in fleet.promise.losses
        ],
    }


def rows(verification: Verification) -> list[tuple[str, str, str, str, str]]:
    """A table's rows for the lines that were not simply taken."""
    return [
        (
            line.request.symbol,
            line.request.value,
            f"{line.outcome}: {line.found}",
            line.why,
            line.waiver or line.request.place,
        )
        for line in verification.lines
        if line.outcome != "taken"
    ]


def summary(verification: Verification, config: Mapping[str, str] | None = None) -> str:
    """One line: how many lines were taken, waived and are unexplained."""
    taken = sum(line.outcome == "taken" for line in verification.lines)
    waived = sum(bool(line.waiver) for line in verification.lines)
    counts = ""
    if config is not None:
        counts = (
            f"; {sum(v == 'y' for v in config.values())} built in, {sum(v == 'm' for v in config.values())} modules"
        )
    return (
        f"{verification.version}: {len(verification.lines)} requested lines, {taken} taken, {waived} waived, "
        f"{len(verification.unexplained)} unexplained{counts}"
    )


def verdict(report: ConfigReport) -> CheckFailedError | None:
    """What fails the command, if anything."""
    checks = [report.prepared.verification, *report.forward]
    wrong = [(check.version, line) for check in checks for line in check.unexplained]
    if wrong:
        version, line = wrong[0]
        return ConfigUnexplained(
            f"{len(wrong)} requested lines did not end in the configuration, first: {line.request.symbol}="
            f"{line.request.value} ({line.request.place}) on {version}: {line.why}",
            "mend the fragment, narrow it with `# Kernel:`, or waive the symbol in the profile with a reason",
        )
    return refusal(report.violations()) or lost_devices(report.prepared)


def lost_devices(prepared: Prepared) -> DeviceLost | None:
    """The error of a fleet that would lose a device."""
    broken = prepared.fleet.promise.broken if prepared.fleet else ()
    if not broken:
        return None
    listed = "\n  ".join(f"{loss.node} would lose {loss.device} ({loss.driver}): {loss.why}" for loss in broken)
    return DeviceLost(
        f"{len(broken)} devices of the fleet would be lost:\n  {listed}",
        "add the symbol to a fragment of the profile, or the module to [may_lose] in kernel/fleet/policy.toml",
    )
