"""`kanctl kernel gap`: what the nodes' kernels can do, and the lines that lead to the rest; changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kanctl.errors import BadInputError, CheckFailedError
from kanctl.kernel.capability import load_capabilities
from kanctl.kernel.fleet.resolve import names_of
from kanctl.kernel.gap import Fix, Step, Verdict, judge, merge_options
from kanctl.kernel.kernel_setup import Setup, node_setup
from kanctl.kernel.prepare import require_architecture

# What stands above the steps of one kind, in the order in which they are told: the least work first.
HEADINGS = {
    Fix.RESTART: "restart the node, or load the module again",
    Fix.BOOT: "boot arguments (kanctl kernel tune)",
    Fix.PARAMETER: "module options (kanctl provision nodes sets NVIDIA's); then update-initramfs -u and a restart",
    Fix.UNKNOWN: "unknown, and how to see it",
    Fix.DRIVER: "driver",
    Fix.BUILD: "another kernel (kanctl kernel build)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGap:
    """One node: what it is, and its verdict for each capability asked for."""

    name: str
    facts: Mapping[str, Any]
    setup: Setup
    verdicts: Mapping[str, Verdict]

    @property
    def kernel(self) -> str:
        """Release and distribution."""
        return f"{self.facts['release']}, {self.facts.get('distribution', 'unknown')}"

    def steps(self, *, better: bool = False) -> dict[Step, tuple[str, ...]]:
        """Step -> the capabilities that it serves; options of one module and file are one line.

        With `better`: the steps that are not needed, but make a capability better.
        """
        needed = {step for verdict in self.verdicts.values() for step in verdict.steps}
        found: dict[Step, list[str]] = {}
        for name, verdict in self.verdicts.items():
            for step in verdict.better if better else verdict.steps:
                if not (better and step in needed):
                    found.setdefault(step, []).append(name)
        merged: dict[Step, tuple[str, ...]] = {}
        for step in merge_options(found, self.setup):
            served = found.get(step) or [
                name for part, names in found.items() if _is_part(part, step) for name in names
            ]
            merged[step] = tuple(dict.fromkeys(served))
        return merged


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """All nodes, and the capabilities that were named on the command line."""

    nodes: tuple[NodeGap, ...]
    selected: tuple[str, ...]

    @property
    def groups(self) -> list[tuple[NodeGap, list[str]]]:
        """One node of each kind with the names of all of its kind: those with the same kernel, verdicts and steps."""
        found: dict[object, tuple[NodeGap, list[str]]] = {}
        for node in self.nodes:
            words = tuple(verdict.word for verdict in node.verdicts.values())
            key = (node.kernel, words, tuple(node.steps()), tuple(node.steps(better=True)))
            found.setdefault(key, (node, []))[1].append(node.name)
        return list(found.values())


def find_gap(fleet: Mapping[str, Any], selected: Sequence[str]) -> Gap:
    """Judge every node of a fleet document for the capabilities named, or for all.

    Raises:
        BadInputError: there is no such capability, or a node is no x86-64 machine.
    """
    capabilities = load_capabilities()
    wrong = [name for name in selected if name not in capabilities]
    if wrong:
        raise BadInputError(f"there is no capability {', '.join(wrong)}", f"one of: {', '.join(capabilities)}")
    require_architecture(fleet["nodes"])
    nodes = []
    for name, facts in fleet["nodes"].items():
        setup = node_setup(facts)
        verdicts = judge(setup, capabilities)
        kept = {each: verdicts[each] for each in selected or capabilities}
        nodes.append(NodeGap(name=name, facts=facts, setup=setup, verdicts=kept))
    return Gap(nodes=tuple(nodes), selected=tuple(selected))


def table(gap: Gap) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: one row for all nodes of one kind, one column a capability."""
    # A heading is broken after its first word, so that all of them stand side by side on a terminal.
    heads = ["nodes", "kernel", *(name.replace("gpudirect-", "gpudirect-\n") for name in gap.nodes[0].verdicts)]
    rows = [
        [names_of(names), node.kernel, *(verdict.word for verdict in node.verdicts.values())]
        for node, names in gap.groups
    ]
    return heads, rows


def lines(gap: Gap) -> list[str]:
    """What stands below the table: for nodes of one kind what is enough for each capability, and what to add."""
    told: list[str] = []
    for node, names in gap.groups:
        open_ones = [(name, verdict) for name, verdict in node.verdicts.items() if not verdict.is_met]
        told.append(f"{names_of(names)}: {node.kernel}")
        told += [f"  {name}: {verdict.enough}" for name, verdict in open_ones]
        told += _told(node.steps(), "")
        told += _told(node.steps(better=True), "better with ")
        told.append("")
    return told[:-1]


def verdict(gap: Gap) -> CheckFailedError | None:
    """The error of a capability that was asked for by name and is not met, or not known to be, on some node."""
    missing = [
        f"{node.name}: {name}: {each.word}"
        for node in gap.nodes
        for name, each in node.verdicts.items()
        if gap.selected and not each.is_met
    ]
    if not missing:
        return None
    return CheckFailedError(
        f"{len(missing)} capabilities are not met:\n  " + "\n  ".join(missing), "the lines to add stand above"
    )


def document(gap: Gap) -> dict[str, Any]:
    """The answer as one JSON object; docs/kernel-gap.md describes it."""
    return {"nodes": {node.name: _node_document(node) for node in gap.nodes}}


def _node_document(node: NodeGap) -> dict[str, Any]:
    return {
        "release": node.facts["release"],
        "version": ".".join(map(str, node.setup.version)),
        "distribution": node.facts.get("distribution"),
        "capabilities": {name: _verdict_document(each) for name, each in node.verdicts.items()},
        "steps": _step_rows(node.steps()),
        "better": _step_rows(node.steps(better=True)),
    }


def _verdict_document(verdict: Verdict) -> dict[str, Any]:
    return {
        "met": verdict.is_met,
        "verdict": verdict.word,
        "enough": verdict.enough,
        "needs": [
            {
                "need": finding.need.text,
                "met": finding.is_met,
                "better": finding.need.is_better,
                "found": finding.found,
                "why": finding.need.why,
                "source": finding.need.source,
                "steps": [{"fix": str(step.fix), "line": step.line, "place": step.place} for step in finding.steps],
            }
            for finding in verdict.findings
        ],
    }


def _step_rows(steps: Mapping[Step, Sequence[str]]) -> list[dict[str, Any]]:
    return [
        {"fix": str(step.fix), "line": step.line, "place": step.place, "for": list(served)}
        for step, served in steps.items()
    ]


def _told(steps: Mapping[Step, Sequence[str]], prefix: str) -> list[str]:
    """The steps as text, those of one kind under their heading."""
    told = []
    for fix, heading in HEADINGS.items():
        same = {step: served for step, served in steps.items() if step.fix is fix}
        told += [f"  {prefix}{heading}:"] if same else []
        for step, served in same.items():
            place = f"{step.place}: " if fix in {Fix.PARAMETER, Fix.UNKNOWN} else ""
            told.append(f"    {place}{step.line}   [{', '.join(served)}]")
    return told


def _is_part(part: Step, whole: Step) -> bool:
    """Whether a line of one setting went into a merged line of options."""
    setting = part.line.split(None, 2)[-1] if part.line.startswith("options ") else part.line
    return part.fix is Fix.PARAMETER and whole.line.startswith("options ") and setting in whole.line
