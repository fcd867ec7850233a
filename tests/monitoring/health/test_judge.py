"""Every check's answer for every case of cases.yml, and what holds for all checks."""

import copy
from pathlib import Path

import pytest
import yaml

from kanctl.monitoring.errors import FactsInvalid, UnknownCheck
from kanctl.monitoring.health.catalog import CHECKS, judge, select_checks
from kanctl.monitoring.health.facts import NodeFacts, facts_from_dict
from kanctl.monitoring.health.finding import ClockOffset, Declared, View

HERE = Path(__file__).parent
HEALTHY = yaml.safe_load((HERE / "healthy_node.yml").read_text())
CASES = yaml.safe_load((HERE / "cases.yml").read_text())


def changed(changes: dict) -> NodeFacts:
    document = copy.deepcopy(HEALTHY)
    for path, value in changes.items():
        *folders, name = path.split(".")
        part = document
        for folder in folders:
            part = part[folder]
        assert name in part, f"cases.yml: {path} is no fact"
        part[name] = value
    return facts_from_dict(document)


def make_view(case: dict) -> View:
    facts, other = changed(case.get("facts", {})), changed(case.get("others", {}))
    fleet = {"gpu1": facts, "gpu2": other, "gpu3": other}
    seen = case.get("seen", ["gpu1", "gpu2", "gpu3"])
    clock = case.get("clock", [0, 1])
    return View(
        node="gpu1",
        facts=facts,
        declared=Declared(**{"gpu_count": 8, **case.get("declared", {})}),
        fleet=dict(list(fleet.items())[: case.get("fleet_size", 3)]),
        clock=None if clock is None else ClockOffset(offset_ms=clock[0], uncertainty_ms=clock[1]),
        seen_tokens=None if seen is None else tuple(seen),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['check']}-{case['status']}-{CASES.index(case)}")
def test_check_answers_as_the_case_says(case):
    (finding,) = judge([make_view(case)], select_checks([case["check"]]))

    assert finding.status == case["status"], finding
    for attribute in ("found", "wanted", "where"):
        assert case.get(attribute, "") in getattr(finding, attribute)
    assert case.get("next", "") in finding.next_step


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['check']}-{case['status']}-{CASES.index(case)}")
def test_bad_answers_say_what_was_wanted_and_what_to_do(case):
    (finding,) = judge([make_view(case)], select_checks([case["check"]]))

    assert finding.found
    if finding.status in ("warn", "fail"):
        assert finding.wanted
        assert finding.where
        assert finding.next_step


def test_a_healthy_node_passes_every_check():
    findings = judge([make_view({})])

    assert {finding.check: finding.status for finding in findings} == {check.id: "pass" for check in CHECKS}


def test_every_check_has_a_passing_and_a_bad_case():
    for check in CHECKS:
        states = {case["status"] for case in CASES if case["check"] == check.id}
        assert "pass" in states, check.id
        assert states & {"warn", "fail"}, check.id


def test_no_check_says_worse_than_its_severity():
    for case in CASES:
        (check,) = select_checks([case["check"]])
        assert not (check.severity == "warn" and case["status"] == "fail"), check.id


def test_a_health_id_selects_its_whole_group():
    assert [check.id for check in select_checks(["D2"])] == ["disk-free", "disk-inodes"]


def test_an_unknown_check_is_refused_with_the_known_ones():
    with pytest.raises(UnknownCheck, match="disk-free"):
        select_checks(["disk-fre"])


def test_facts_without_a_key_are_refused_with_its_name():
    document = copy.deepcopy(HEALTHY)
    del document["kernel"]["cmdline"]

    with pytest.raises(FactsInvalid, match=r"facts\.kernel: .*cmdline"):
        facts_from_dict(document)
