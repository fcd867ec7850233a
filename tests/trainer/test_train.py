"""The training process as a node runs it: exact resume, a stop by signal, and what a wrong folder is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kanctl.trainer.checkpoint import whole_checkpoints
from kanctl.trainer.config import RunConfig, apply_overrides, to_dict
from kanctl.trainer.train import main, read_config

ALONE = [sys.executable, "-m", "kanctl.trainer.train"]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0"),
    *("-m", "--", "kanctl.trainer.train"),
]
# Long enough for a signal in the middle: a micro step takes a few milliseconds.
STEPS = 600


@pytest.fixture
def make_run(tmp_path: Path, corpus_dir: Path, micro_config: RunConfig) -> Callable[..., Path]:
    """A function that makes run folders in one data folder."""
    (tmp_path / "corpora").mkdir()
    shutil.copytree(corpus_dir, tmp_path / "corpora" / "stdlib")

    def make(name: str, *overrides: str) -> Path:
        intervals = ["train.log_every_steps=1", "train.eval_every_steps=1000", "train.checkpoint_every_steps=1000"]
        config = apply_overrides(micro_config, ["engine.device=cpu", f"train.steps={STEPS}", *intervals, *overrides])
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(to_dict(config)))
        return folder

    return make


def start(words: list[str], run_dir: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(run_dir / "extensions")}
    return subprocess.Popen(
        [*words, "--run-dir", str(run_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit code, stdout, stderr. A process that hangs is killed, and the test fails."""
    try:
        out, err = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def records(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def wait_until_it_trains(process: "subprocess.Popen[str]", run_dir: Path) -> None:
    deadline = time.monotonic() + 100
    while not records(run_dir, "train"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def signal_when_it_trains(process: "subprocess.Popen[str]", run_dir: Path) -> None:
    wait_until_it_trains(process, run_dir)
    process.send_signal(signal.SIGTERM)


@pytest.mark.slow
def test_a_stopped_and_resumed_run_equals_one_in_one_go_bit_for_bit(make_run: Callable[..., Path]) -> None:
    whole, parts = make_run("whole"), make_run("parts")
    stopped = start(ALONE, parts)
    signal_when_it_trains(stopped, parts)
    code, out, err = finish(stopped)
    assert (code, err) == (0, "")
    [end] = records(parts, "end")
    assert end["reason"] == "stopped"
    assert 0 < end["step"] < STEPS
    assert f"stopped at step {end['step']}" in out
    assert [path.name for path in whole_checkpoints(parts)] == [f"step-{end['step']:06d}"]

    assert finish(start(ALONE, parts))[0] == 0
    assert finish(start(ALONE, whole))[0] == 0
    wanted = [(record["step"], record["loss_nats"], record["grad_norm"]) for record in records(whole, "train")]
    found = [(record["step"], record["loss_nats"], record["grad_norm"]) for record in records(parts, "train")]
    assert found == wanted
    assert wanted[-1][1] < wanted[0][1]
    weights = [folder / "checkpoints" / f"step-{STEPS:06d}" / "model.safetensors" for folder in (whole, parts)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    versions = json.loads((whole / "versions.json").read_text())
    assert {"kanctl", "torch", "deepspeed", "python", "world_size"} <= set(versions)


@pytest.mark.slow
def test_a_signal_to_torchrun_ends_both_ranks_at_one_step(make_run: Callable[..., Path]) -> None:
    run_dir = make_run("two", "train.steps=100000")
    process = start(TORCHRUN, run_dir)
    signal_when_it_trains(process, run_dir)
    code, out, err = finish(process)
    # torchrun's own word for having been signalled is an exception; the workers' end is in the run folder.
    assert code == 1
    assert "SignalException" in err
    assert "forcefully exiting" not in err
    [end] = records(run_dir, "end")
    assert end["reason"] == "stopped"
    assert out.rstrip().endswith(f"stopped at step {end['step']}")
    [checkpoint] = whole_checkpoints(run_dir)
    assert checkpoint.name == f"step-{end['step']:06d}"
    states = sorted(path.name for path in (checkpoint / "engine").glob("*optim_states.pt"))
    assert len(states) == 2
    assert json.loads((checkpoint / "meta.json").read_text())["world_size"] == 2


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_with_the_reason(make_run: Callable[..., Path]) -> None:
    run_dir = make_run("lost", "train.steps=100000")
    process = start(TORCHRUN, run_dir)
    wait_until_it_trains(process, run_dir)
    workers = psutil.Process(process.pid).children()
    [last] = [worker for worker in workers if worker.environ().get("RANK") == "1"]
    last.kill()
    code, _, err = finish(process)
    assert code == 1
    assert "rank 0 lost another process of the run" in err
    assert not [worker for worker in workers if worker.is_running()]
    [end] = records(run_dir, "end")
    assert end["reason"] == "failed"
    assert "lost another process" in end["message"]


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_the_reason(make_run: Callable[..., Path], tiny_disk: Path) -> None:
    made = make_run("full", "train.steps=3")
    run_dir = tiny_disk / "run"
    shutil.copytree(made, run_dir)
    process = start([*ALONE, "--corpus", str(made.parent.parent / "corpora" / "stdlib")], run_dir)
    code, _, err = finish(process)
    assert code == 1
    assert "the checkpoint of step 3 could not be written" in err
    assert "next: free space there" in err
    assert "Traceback" not in err
    assert records(run_dir, "end")[-1]["reason"] == "failed"
    assert whole_checkpoints(run_dir) == []


def test_a_folder_that_is_no_run_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert main(["--run-dir", str(tmp_path / "nowhere")]) == 1
        assert "config.json is missing" in capsys.readouterr().err
        (tmp_path / "config.json").write_text("{")
        assert main(["--run-dir", str(tmp_path)]) == 1
        assert "is damaged" in capsys.readouterr().err
        (tmp_path / "config.json").write_text('{"name": "x"}')
        assert main(["--run-dir", str(tmp_path)]) == 2
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_a_missing_corpus_is_told_before_anything_is_started(
    tmp_path: Path, micro_config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "runs" / "x"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(json.dumps(to_dict(micro_config)))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        assert main(["--run-dir", str(run_dir)]) == 2
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    shown = capsys.readouterr().err
    assert f"no corpus in {tmp_path / 'corpora' / 'stdlib'}" in shown
    assert "kanctl train prepare" in shown
    assert read_config(run_dir) == micro_config


def test_a_process_ends_with_its_words_said_and_the_interpreter_left_alone() -> None:
    script = "import atexit; from kanctl.trainer.train import end_process; atexit.register(print, 'late')"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script}; print('said', end=''); end_process(3)"], stdout=subprocess.PIPE, text=True
    )
    assert process.communicate(timeout=100)[0] == "said"
    assert process.returncode == 3
