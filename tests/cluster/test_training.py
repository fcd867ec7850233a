"""Training on the cluster: launched, looked at, stopped, resumed; and what is refused before anything starts."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

# Small enough for two cores, long enough to be looked at while it runs.
QUICK = ("--set", "train.sequences_per_rank=2", "--set", "train.eval_sequences=4", "--set", "model.context_tokens=64")
LONG = (*QUICK, "--set", "train.steps=5000", "--set", "train.log_every_steps=5")


def test_a_run_outlives_the_shell_that_launched_it_and_can_be_stopped_and_resumed(cluster):
    launch = f"{sys.executable} -m kanctl.cli train launch tiny --name outlives --follow {' '.join(LONG)}"
    shell = subprocess.Popen(["sh", "-c", launch + "; true"], env=cluster.environment, start_new_session=True)
    cluster.wait_for("outlives", "running", step=5)
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    before = cluster.wait_for("outlives", "running", step=10)
    assert before["node_states"] == {"node1": "active", "node2": "active"}
    assert cluster.wait_for("outlives", "running", step=before["step"] + 5)

    busy = cluster.kanctl("train", "launch", "tiny")
    assert busy.returncode == 1
    assert "busy with kanctl-train-outlives.service" in busy.stderr

    stopped = cluster.kanctl("train", "stop", "outlives")
    assert stopped.returncode == 0, stopped.stderr
    status = cluster.wait_for("outlives", "stopped")
    assert set(status["node_states"].values()) <= {"inactive", "failed"}

    resumed = cluster.kanctl("train", "resume", "outlives")
    assert resumed.returncode == 0, resumed.stderr
    assert cluster.wait_for("outlives", "running", step=status["step"] + 5)
    assert cluster.kanctl("train", "stop", "outlives").returncode == 0
    assert "going on from the checkpoint" in cluster.kanctl("train", "logs", "outlives", "--lines", "500").stdout


def test_a_finished_run_leaves_all_that_it_should_and_can_be_evaluated_and_sampled(cluster):
    done = cluster.kanctl("train", "launch", "tiny", "--name", "whole", "--follow", *QUICK, "--set", "train.steps=40")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "whole"
    status = cluster.answer("train", "status", "whole")
    assert (status["state"], status["step"]) == ("finished", 40)
    assert status["loss_last_nats"] < status["loss_first_nats"] * 2 / 3

    folder = cluster.shared / "runs" / "whole"
    assert json.loads((folder / "versions.json").read_text())["world_size"] == 2
    assert json.loads((folder / "config.json").read_text())["train"]["steps"] == 40
    assert (folder / "checkpoints" / "step-000040" / "model.safetensors").is_file()
    assert (folder / "logs" / "node2.log").is_file()

    score = cluster.answer("train", "evaluate", "whole", "--max-bytes", "4096")
    [bits] = [row for row in score["measures"] if row["name"] == "bits per byte"]
    assert 1 < bits["value"] < bits["baselines"]["byte frequency"] + 1
    sample = cluster.answer("train", "sample", "whole", "--prompt", "import ", "--tokens", "20", "--seed", "3")
    assert sample["prompt"] == "import "
    assert sample == cluster.answer("train", "sample", "whole", "--prompt", "import ", "--tokens", "20", "--seed", "3")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["launch", "tinny"], 2, "tiny"),
        (["launch", "tiny", "--set", "train.stepps=3"], 2, "steps"),
        (["launch", "tiny", "--set", "data.corpus=nothing-here"], 1, "kanctl train prepare --name nothing-here"),
        (["launch", "tiny", "--name", "a;b"], 2, "letters, digits and hyphens"),
        (["launch", "tiny", "--limit", "node9"], 2, "node1, node2"),
        (["status", "nothing-here"], 2, "no run nothing-here"),
        (["prepare", "--name", "empty", "--source", "/srv/kanctl/no-text"], 2, "none of 1 files is text"),
        (["prepare", "--name", "empty", "--source", "/srv/kanctl/not-there"], 2, "wanted a folder with text"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason_and_leaves_nothing(cluster, words, code, said):
    (cluster.shared / "no-text").mkdir(exist_ok=True)
    (cluster.shared / "no-text" / "binary").write_bytes(b"\x00\xff")
    before = runs_and_corpora(cluster)
    done = cluster.kanctl("train", *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert runs_and_corpora(cluster) == before


def runs_and_corpora(cluster) -> list[str]:
    folders = [cluster.shared / "runs", cluster.shared / "corpora"]
    return sorted(path.name for folder in folders for path in folder.glob("*") if path.suffix != ".lock")


def test_telemetry_shows_a_dead_node_as_a_row(cluster):
    # The node comes back by itself: nothing can be said to it once SSH is gone.
    cluster.on_node("node2", "systemd-run --on-active=12s systemctl start ssh.service")
    cluster.on_node("node2", "systemctl stop ssh.socket ssh.service")
    done = cluster.kanctl("telemetry", "view", "--once", "--json")
    states = {node["node"]: node["state"] for node in json.loads(done.stdout)["nodes"]}
    assert states["node1"] == "ok"
    assert states["node2"] != "ok"
    deadline = time.monotonic() + 60
    while not cluster.on_node("node2", "echo back") and time.monotonic() < deadline:
        time.sleep(1)
