"""A health report as table, explanations, JSON and exit code."""

import json

from kanctl.cli.health_run import HealthReport
from kanctl.cli.health_view import document, explanations, table, verdict
from kanctl.errors import NodeUnreachableError
from kanctl.monitoring.health.finding import Finding


def finding(node: str, check: str, status: str, **texts: str) -> Finding:
    values = {"wanted": "much", "found": "little", "where": "/", "next_step": "do it", **texts}
    return Finding(node=node, check=check, health_id="D2", status=status, **values)


def report(*findings: Finding, **problems: NodeUnreachableError) -> HealthReport:
    nodes = tuple(dict.fromkeys([*(item.node for item in findings), *problems]))
    return HealthReport(cluster="c", time_unix_s=1.0, nodes=nodes, findings=findings, problems=problems)


def test_a_node_that_was_not_checked_has_a_column_without_answers():
    columns, rows = table(report(finding("a", "disk-free", "fail"), b=NodeUnreachableError("gone")))

    assert columns == ["check", "group", "a", "b"]
    assert rows == [["disk-free", "D2", "FAIL", "no answer"]]


def test_the_same_on_all_nodes_is_said_once():
    lines = explanations(report(finding("a", "disk-free", "warn"), finding("b", "disk-free", "warn")))

    assert lines == ["warn       disk-free, all nodes: wanted much; found little (/)\n           next: do it"]


def test_failures_come_before_what_does_not_apply():
    lines = explanations(
        report(
            finding("a", "swap-off", "not_applicable"), finding("a", "tasks", "pass"), finding("a", "disk-free", "fail")
        )
    )

    assert [line.split()[0] for line in lines] == ["FAIL", "-"]


def test_exit_code_3_for_a_failed_check_and_none_for_a_warning():
    error = verdict(report(finding("a", "disk-free", "fail"), finding("b", "tasks", "warn")))

    assert error is not None
    assert error.exit_code == 3
    assert verdict(report(finding("a", "tasks", "warn"), finding("a", "swap-off", "unknown"))) is None


def test_exit_code_4_wins_because_something_was_not_checked():
    error = verdict(report(finding("a", "disk-free", "fail"), b=NodeUnreachableError("gone")))

    assert error is not None
    assert error.exit_code == 4
    assert "1 checks failed on a" in str(error)


def test_the_document_keeps_every_finding_and_every_reason():
    found = document(report(finding("a", "disk-free", "fail"), b=NodeUnreachableError("gone")))

    assert json.loads(json.dumps(found)) == found
    assert found["counts"] == {"fail": 1}
    assert [node["is_checked"] for node in found["nodes"]] == [True, False]
    assert found["nodes"][1]["problem"] == "gone"
    assert found["nodes"][0]["findings"][0]["next_step"] == "do it"
