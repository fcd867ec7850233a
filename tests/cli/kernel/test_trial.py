"""What the states of nodes amount to: rows of a table, one error or none."""

import pytest

from kanctl.cli.kernel.trial import NodeTrial, rows, verdict
from kanctl.errors import NodeUnreachableError

GOOD = {"release": "new", "good": True, "reason": "passed its gate"}
BAD = {"release": "new", "good": False, "reason": "a panic, a hang or a power cut"}
TRIAL = {"kind": "install", "release": "new", "phase": "booted"}


@pytest.mark.parametrize(
    ("trial", "code", "said"),
    [
        (NodeTrial(node="n1", running="new", last=GOOD), None, ""),
        (NodeTrial(node="n1", running="new", trial=TRIAL), None, ""),
        (NodeTrial(node="n1", running="old", last=BAD), 1, "n1: new: a panic"),
        (NodeTrial(node="n1", trial=TRIAL, problems=("lost a GPU",)), 3, "n1: lost a GPU"),
        (NodeTrial(node="n1", error=NodeUnreachableError("no answer")), 4, "1 nodes did not answer: n1"),
    ],
)
def test_a_state_has_its_exit_code_and_its_words(trial, code, said):
    error = verdict([trial, NodeTrial(node="n2", running="old")])
    assert (error.exit_code if error else None) == code
    assert said in str(error or "")


def test_a_table_shows_what_runs_and_what_is_said_of_it():
    shown = rows([NodeTrial(node="n1", running="old", last_good="old", last=BAD), NodeTrial(node="n2", trial=TRIAL)])
    assert shown[0] == ("n1", "old", "old", "-", "new failed: a panic, a hang or a power cut")
    assert shown[1][3] == "install new (booted)"


def test_a_node_that_never_had_a_trial_is_no_error():
    assert verdict([NodeTrial(node="n1")]) is None
    assert rows([NodeTrial(node="n1")]) == [("n1", "-", "-", "-", "")]
