"""Rules: contradictions in a kernel's configuration, boot arguments and module options, read from rules.toml. Pure.

Which rules there are, why, and what to do is in the file; this one only reads and asks.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kanctl.errors import CheckFailedError

from .answer import ask, holds
from .condition import Clause, parse_clause
from .errors import FragmentInvalid
from .kernel_setup import Setup

RULES = Path(__file__).parent / "rules.toml"
KEYS = {"id", "severity", "when", "message", "source"}


class Severity(StrEnum):
    """Whether a kernel that breaks the rule is made."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where `when` holds, `requires` must hold, or `forbids` must not; one of the two is given."""

    name: str
    severity: Severity
    when: Clause
    requires: Clause | None
    forbids: Clause | None
    message: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that is broken, and what was found that breaks it."""

    rule: Rule
    severity: Severity
    found: str

    @property
    def text(self) -> str:
        """The violation on one line."""
        return f"{self.rule.name}: {self.rule.message} Found: {self.found}."


def load_rules(path: Path = RULES) -> tuple[Rule, ...]:
    """All rules, in the file's order. Raises FragmentInvalid with every mistake of the file at once."""
    mistakes: list[str] = []
    rules = []
    for row in tomllib.loads(path.read_text())["rule"]:
        try:
            rules.append(_read_rule(row))
        except (FragmentInvalid, ValueError) as error:
            mistakes.append(f"{row.get('id', 'a rule without id')}: {error}")
    names = [rule.name for rule in rules]
    mistakes += [f"{name}: stands there twice" for name in sorted(set(names)) if names.count(name) > 1]
    if mistakes:
        raise FragmentInvalid(f"{len(mistakes)} mistakes in {path}:\n  " + "\n  ".join(mistakes))
    return tuple(rules)


def _read_rule(row: Mapping[str, object]) -> Rule:
    sides = {"requires", "forbids"} & set(row)
    if set(row) - sides != KEYS or len(sides) != 1:
        raise FragmentInvalid(f"wanted {', '.join(sorted(KEYS))} and requires or forbids, found {', '.join(row)}")
    return Rule(
        name=str(row["id"]),
        severity=Severity(str(row["severity"])),
        when=parse_clause(row["when"]),
        requires=parse_clause(row["requires"]) if "requires" in row else None,
        forbids=parse_clause(row["forbids"]) if "forbids" in row else None,
        message=str(row["message"]),
        source=str(row["source"]),
    )


def check(setup: Setup, rules: Iterable[Rule] | None = None, *, force: Collection[str] = ()) -> tuple[Violation, ...]:
    """The rules that a setup breaks, refusals first.

    Args:
        setup: see kernel_setup.profile_setup for a profile, and node_setup for a node.
        force: names of rules that somebody decided to break; their refusals become warnings.

    Raises:
        FragmentInvalid: `force` names no rule.
    """
    known = load_rules() if rules is None else tuple(rules)
    wrong = sorted(set(force) - {rule.name for rule in known})
    if wrong:
        raise FragmentInvalid(f"there is no rule {', '.join(wrong)}", "kernel/rules.toml has their names")
    found = [violation for rule in known if (violation := _check_rule(rule, setup))]
    found = [replace(each, severity=Severity.WARN) if each.rule.name in force else each for each in found]
    return tuple(sorted(found, key=lambda violation: violation.severity is not Severity.REFUSE))


def refusal(violations: Iterable[Violation]) -> CheckFailedError | None:
    """The error of violations that refuse a kernel; None where all are warnings."""
    refused = [violation.text for violation in violations if violation.severity is Severity.REFUSE]
    if not refused:
        return None
    return CheckFailedError(
        f"{len(refused)} rules refuse this kernel:\n  " + "\n  ".join(refused),
        "mend the profile, its boot arguments or options as the rule says",
    )


def _check_rule(rule: Rule, setup: Setup) -> Violation | None:
    """What cannot be known neither starts a rule nor breaks it."""
    if not holds(rule.when, setup):
        return None
    clause = rule.requires or rule.forbids
    assert clause is not None
    if holds(clause, setup) is not (rule.requires is None):
        return None
    return Violation(rule=rule, severity=rule.severity, found=_found(rule, clause, setup))


def _found(rule: Rule, clause: Clause, setup: Setup) -> str:
    """What was found, without the parts of the clause that are as they should be."""
    wanted = rule.requires is not None
    answers = [ask(condition, setup) for part in (*rule.when, *clause) for condition in part]
    told = [ask(condition, setup) for part in clause for condition in part]
    telling = [answer.found for answer in told if answer.holds is not wanted and answer.holds is not None]
    return ", ".join(dict.fromkeys(telling or [answer.found for answer in answers if answer.holds]))
