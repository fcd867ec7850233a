"""How a provisioning looks."""

import io

from rich.console import Console

from kanctl.cli.provisioning.state import ProvisionState, StepState
from kanctl.cli.provisioning.view import LiveView, PlainView, describe_cell, draw_table, print_summary


def half_way() -> ProvisionState:
    """Two nodes: one busy in its second step, the other failed in the first; no node needs the GPU step."""
    state = ProvisionState(nodes=("node1", "node2"), steps=["base", "nvidia_driver", "node_tuning"])
    state.cells = {
        ("node1", "base"): StepState(changed=4, ran=9, outcome="done", seconds=7.4),
        ("node1", "nvidia_driver"): StepState(outcome="skipped"),
        ("node1", "node_tuning"): StepState(ran=2, seconds=2.0),
        ("node2", "base"): StepState(ran=1, outcome="failed", seconds=1.0),
    }
    state.running = {"node1": "Huge pages are reserved"}
    state.finished = [("node1", "base"), ("node1", "nvidia_driver")]
    return state


def test_the_table_fits_80_columns_and_leaves_out_what_no_node_needs():
    screen = io.StringIO()
    Console(file=screen, width=80).print(draw_table(half_way()))
    text = screen.getvalue()

    assert "ok +4" in text
    assert "FAILED" in text
    assert "nvidia" not in text
    assert "…" not in text


def test_the_live_view_says_what_runs_now():
    screen = io.StringIO()
    console = Console(
        file=screen, width=80, force_terminal=True, markup=False, highlight=False, _environ={"TERM": "xterm"}
    )
    with LiveView(console) as view:
        view.show(half_way())
        view.say("node1: [a] diff")
        view._live.refresh()

    assert "'Huge pages are reserved' on node1" in screen.getvalue()
    assert "node1: [a] diff" in screen.getvalue()


def test_the_plain_view_has_a_line_for_each_finished_step(capsys):
    with PlainView() as view:
        view.show(half_way())

    assert capsys.readouterr().err == "node1: base done in 7 s, 4 changed\n"


def test_a_cell_says_how_its_step_ended():
    assert describe_cell(None) == ""
    assert describe_cell(StepState()) == "..."
    assert describe_cell(StepState(outcome="unreachable")) == "UNREACHABLE"


def test_the_summary_names_seconds_and_the_slowest_steps(capsys):
    print_summary(half_way())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]

    assert ["node1", "0", "0", "0", "0", "9", "s"] in lines
    assert ["base", "node1", "7", "s"] in lines
