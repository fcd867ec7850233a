"""What a run's events say about each node; events/ was recorded from real runs by record_events.py."""

import json
from pathlib import Path

import pytest

from kanctl.cli.provisioning.state import REMARK_LENGTH, ProvisionState

EVENTS = [
    json.loads(line) for line in Path(__file__).with_name("events").joinpath("many.jsonl").read_text().splitlines()
]
NODES = ("alpha", "beta", "gamma", "delta")


@pytest.fixture
def state() -> ProvisionState:
    """The state after all of the recorded events."""
    state = ProvisionState(nodes=NODES)
    for event in EVENTS:
        state.apply(event)
    return state


def remark(kind: str, text: str) -> dict[str, object]:
    return {"event": kind, "stdout": text, "event_data": {}}


def test_totals_are_those_of_ansible(state):
    assert state.totals["alpha"] == {"ok": 5, "changed": 1, "failed": 0, "unreachable": 0, "skipped": 3}
    assert state.totals["beta"]["failed"] == 1
    assert state.totals["gamma"] == {"ok": 0, "changed": 0, "failed": 0, "unreachable": 1, "skipped": 1}


def test_a_run_that_is_cut_short_has_totals_too():
    state = ProvisionState(nodes=NODES)
    for event in EVENTS[:-1]:
        state.apply(event)

    assert state.totals["alpha"]["changed"] == 1
    assert state.totals["gamma"]["unreachable"] == 1
    assert state.totals["delta"]["failed"] == 1


def test_only_failures_that_count_are_told(state):
    assert {(failure.node, failure.task) for failure in state.failures if failure.node != "beta"} == {
        ("gamma", "Node answers"),
        ("delta", "Secret breaks"),
    }
    assert state.cell("alpha", "facts").outcome == "done"
    assert state.cell("beta", "facts").outcome == "failed"
    assert state.cell("gamma", "facts").outcome == "unreachable"


def test_messages_name_the_item_and_keep_secrets(state):
    messages = {(failure.node, failure.task): failure.message for failure in state.failures}

    assert messages["beta", "One item of a loop breaks"] == "item b: non-zero return code"
    assert "no_log" in messages["delta", "Secret breaks"]
    assert messages["gamma", "Node answers"].startswith("Failed to connect to the host via ssh")


def test_a_role_is_a_step_of_its_own_with_its_changes(state):
    assert state.steps == ["facts", "greet"]
    assert state.cell("alpha", "greet").changed == 1
    assert state.cell("gamma", "greet") is None


def test_what_runs_is_known_until_it_ends():
    state = ProvisionState(nodes=("alpha",))
    data = {"host": "alpha", "role": "base", "task": "Clock is right"}

    state.apply({"event": "runner_on_start", "event_data": data})
    assert state.running == {"alpha": "Clock is right"}
    state.apply({"event": "runner_on_ok", "event_data": {**data, "res": {}}})
    assert state.running == {}


def test_a_step_finishes_when_the_next_begins():
    state = ProvisionState(nodes=("alpha",))
    for role in ("base", "trainer"):
        state.apply({"event": "runner_on_ok", "event_data": {"host": "alpha", "role": role, "task": "t", "res": {}}})

    assert state.finished == [("alpha", "base")]


def test_the_check_of_a_roles_arguments_is_no_step():
    state = ProvisionState(nodes=("alpha",))
    data = {"host": "alpha", "role": "base", "task": "Validating arguments", "res": {}}
    state.apply(
        {"event": "runner_on_ok", "event_data": {**data, "task_action": "ansible.builtin.validate_argument_spec"}}
    )
    state.apply({"event": "playbook_on_stats", "event_data": {}})

    assert state.cell("alpha", "base").outcome == "skipped"


def test_warnings_appear_once_and_trimmed():
    state = ProvisionState(nodes=("alpha",))
    for _ in range(3):
        state.apply(remark("warning", "[WARNING]: It is\r\n late"))
    state.apply(remark("deprecated", "[DEPRECATION WARNING]: " + "x" * 1000))

    assert state.warnings[0] == "It is late"
    assert len(state.warnings) == 2
    assert len(state.warnings[1]) == REMARK_LENGTH + 3


def test_an_error_of_the_playbook_keeps_where_it_is():
    state = ProvisionState(nodes=("alpha",))
    for text in ("[ERROR]: the role 'x' was not found", "Origin: site.yml:3:11", "", "2   hosts: nodes"):
        state.apply(remark("verbose", text))

    assert state.errors == ["the role 'x' was not found (site.yml:3:11)"]


def test_facts_that_cannot_be_gathered_say_why():
    state = ProvisionState(nodes=("alpha",))
    why = {"ansible.legacy.setup": {"msg": "The module interpreter '/usr/bin/python9' was not found."}}
    result = {"msg": "The following modules failed to execute: ansible.legacy.setup.", "failed_modules": why}
    state.apply({"event": "runner_on_failed", "event_data": {"host": "alpha", "task": "t", "res": result}})

    assert state.failures[0].message == "The module interpreter '/usr/bin/python9' was not found."


def test_a_failure_without_words_takes_those_of_the_error_before_it():
    state = ProvisionState(nodes=("alpha",))
    state.apply(remark("error", "[ERROR]: the role 'x' was not found"))
    state.apply({"event": "runner_on_failed", "event_data": {"host": "alpha", "task": "t", "res": {}}})

    assert state.failures[0].message == "the role 'x' was not found"


def retry(status: str) -> dict[str, object]:
    """What Ansible tells of one more look at a unit of the node."""
    result = {"stdout": f"ActiveState=active\nStatusText={status}"}
    data = {"host": "alpha", "role": "kernel_build", "task": "Compilation has ended", "res": result}
    return {"event": "runner_retry", "event_data": data}


def test_what_a_unit_says_is_told_once():
    state = ProvisionState(nodes=NODES)
    for status in ("", "10 of 20 objects"):
        state.apply(retry(status))
    assert state.said == [("alpha", "10 of 20 objects")]
    assert state.running["alpha"] == "Compilation has ended: 10 of 20 objects"
    state.apply(retry("10 of 20 objects"))
    assert state.said == []
