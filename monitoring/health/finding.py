"""What a check is, what it is given, and what it says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .facts import NodeFacts

Status = Literal["pass", "warn", "fail", "unknown", "not_applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What the inventory says about a node; None: it does not say."""

    gpu_count: int | None = None
    memory_gib: float | None = None
    # The name of recorded hardware facts, with which a node without GPUs stands for one with.
    recorded_hardware: str | None = None
    # Empty: the governor is left alone.
    cpu_governor: str = "performance"
    kernel_arguments: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockOffset:
    """Node's clock minus controller's, and how far that may be off: half of the quickest round trip."""

    offset_ms: float
    uncertainty_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that a check may look at: one node's facts, what was declared of it, the facts of every node that answered.

    `clock` and `seen_tokens` (the nodes whose files this node sees in the shared folder) are measured from the
    controller; None: not measured.
    """

    node: str
    facts: NodeFacts
    declared: Declared = field(default_factory=Declared)
    fleet: Mapping[str, NodeFacts] = field(default_factory=dict)
    clock: ClockOffset | None = None
    seen_tokens: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A check's word on one node."""

    status: Status
    wanted: str
    found: str
    where: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check as data. `health_id` groups checks as docs/health.md does; `severity` is the worst it can say."""

    id: str
    health_id: str
    what: str
    severity: Literal["fail", "warn"]
    command: str
    threshold: str
    source: str
    judge: Callable[[View], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict with the node and the check it belongs to."""

    node: str
    check: str
    health_id: str
    status: Status
    wanted: str
    found: str
    where: str
    next_step: str


def passed(wanted: str, found: str) -> Verdict:
    """As it should be."""
    return Verdict(status="pass", wanted=wanted, found=found)


def not_applicable(reason: str) -> Verdict:
    """Nothing to check on this node, and why."""
    return Verdict(status="not_applicable", wanted="", found=reason)
