"""A health report as table, list of findings and JSON document; pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kanctl.errors import CheckFailedError, KanctlError, NodeUnreachableError
from kanctl.monitoring.health.finding import Finding

from .health_run import HealthReport

WORDS = {"pass": "pass", "warn": "warn", "fail": "FAIL", "unknown": "?", "not_applicable": "-"}


def table(report: HealthReport) -> tuple[list[str], list[list[str]]]:
    """(columns, rows): a row per check, a column per node; a node that could not be checked has no answer."""
    by_place = {(finding.check, finding.node): finding for finding in report.findings}
    checks = dict.fromkeys((finding.check, finding.health_id) for finding in report.findings)
    rows = []
    for check, health_id in checks:
        found = [by_place.get((check, node)) for node in report.nodes]
        rows.append([check, health_id, *(WORDS[item.status] if item else "no answer" for item in found)])
    return ["check", "group", *report.nodes], rows


def explanations(report: HealthReport) -> list[str]:
    """What is not as it should be, worst first, then what could not be checked; the same on many nodes is one line."""
    lines = [_problem(name, error) for name, error in report.problems.items()]
    for status in ("fail", "warn", "unknown", "not_applicable"):
        same: dict[tuple[str, str, str, str, str], list[str]] = {}
        for finding in report.findings:
            if finding.status == status:
                key = (finding.check, finding.wanted, finding.found, finding.where, finding.next_step)
                same.setdefault(key, []).append(finding.node)
        lines += [_explain(status, _names(nodes, report.nodes), *key) for key, nodes in same.items()]
    return lines


def document(report: HealthReport) -> dict[str, Any]:
    """The JSON of `kanctl health check --json`; docs/health.md describes it."""
    return {
        "cluster": report.cluster,
        "time_unix_s": report.time_unix_s,
        "counts": dict(Counter(finding.status for finding in report.findings)),
        "nodes": [
            {
                "node": node,
                "is_checked": node not in report.problems,
                "problem": str(report.problems[node]) if node in report.problems else None,
                "findings": [_finding(finding) for finding in report.findings if finding.node == node],
            }
            for node in report.nodes
        ],
    }


def verdict(report: HealthReport) -> KanctlError | None:
    """The error that the command ends with: a node without answer before a failed check, because it was not checked."""
    failed = [finding for finding in report.findings if finding.status == "fail"]
    on_nodes = sorted({finding.node for finding in failed})
    text = f"{len(failed)} checks failed on {', '.join(on_nodes)}" if failed else "the others have no failed check"
    if report.problems:
        return NodeUnreachableError(f"not checked: {', '.join(report.problems)}; {text}", "each has its reason above")
    return CheckFailedError(text, "each has its next step above") if failed else None


def _finding(finding: Finding) -> dict[str, Any]:
    return {key: value for key, value in asdict(finding).items() if key != "node"}


def _names(nodes: Sequence[str], all_nodes: Sequence[str]) -> str:
    return "all nodes" if len(nodes) == len(all_nodes) > 1 else ", ".join(nodes)


def _problem(name: str, error: KanctlError) -> str:
    return f"no answer  {name}: {error}" + (f"\n           next: {error.next_step}" if error.next_step else "")


def _explain(status: str, nodes: str, check: str, wanted: str, found: str, where: str, next_step: str) -> str:
    if status == "not_applicable":
        return f"-          {check}, {nodes}: {found}"
    line = f"{WORDS[status]:<10} {check}, {nodes}: wanted {wanted}; found {found}"
    line += f" ({where})" if where else ""
    return line + (f"\n           next: {next_step}" if next_step else "")
