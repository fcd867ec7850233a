"""`kanctl telemetry view` with nodes that do not answer, and how it reads what a node sends."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from kanctl.cli.telemetry_view import NODE_PYTHON, Board
from kanctl.inventory import Node

from .test_health_run import NOBODY_HOME
from .test_telemetry_table import SAMPLE

NODE = Node(name="a", address="10.0.0.1")


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "known_hosts").touch()
    path = tmp_path / "hosts.yml"
    path.write_text(NOBODY_HOME.format(known_hosts=tmp_path / "known_hosts"))
    return {**os.environ, "KANCTL_INVENTORY": str(path)}


def test_one_look_at_a_dead_node_is_a_document_and_exit_code_4(environment):
    words = [sys.executable, "-m", "kanctl.cli", "telemetry", "view", "--once", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)

    assert done.returncode == 4
    (node,) = json.loads(done.stdout)["nodes"]
    assert (node["node"], node["state"], node["sample"]) == ("node1", "no_answer", None)
    assert "cannot be reached" in node["problem"]
    assert "no sample from node1" in done.stderr


def test_watching_a_dead_node_goes_on_until_interrupted(environment):
    words = [sys.executable, "-m", "kanctl.cli", "telemetry", "view", "--json", "--interval", "0.2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    states = [json.loads(process.stdout.readline())["nodes"][0]["state"] for _ in range(4)]
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    process.communicate(timeout=20)

    assert process.returncode == 130
    assert time.monotonic() - start < 5
    assert states[-1] == "no_answer"


def test_samples_are_taken_and_the_problem_is_forgotten():
    board = Board([NODE], 1.0)
    board._problems["a"] = "was away"
    board._read(NODE, iter([json.dumps(asdict(SAMPLE))]))

    (view,) = board.views()
    assert view.sample == SAMPLE
    assert view.state == "ok"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([f"sh: 1: exec: {NODE_PYTHON}: not found"], "not provisioned"),
        (["ModuleNotFoundError: No module named 'psutil'"], "No module named 'psutil'"),
        ([], "the connection ended"),
        (['{"time_unix_s": 1}'], "wanted a NodeSample"),
    ],
)
def test_the_end_of_a_stream_has_a_reason(lines, reason):
    assert reason in Board([NODE], 1.0)._read(NODE, iter(lines))
