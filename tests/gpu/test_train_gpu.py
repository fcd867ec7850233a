"""Training on real GPUs: bfloat16 over NCCL through torchrun, resumed, with weights that are whole.

Needs one NVIDIA GPU (two for the test of two) and torch built with CUDA. Nothing but the trainer's own packages is
imported, so that a machine with only those can run it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kanctl.trainer.checkpoint import load_model, whole_checkpoints
from kanctl.trainer.config import apply_overrides, load_recipe, to_dict
from kanctl.trainer.evaluate import evaluate_run, parse_arguments
from kanctl.trainer.model import KanLM
from kanctl.trainer.prepare import prepare_corpus

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(GPUS == 0, reason=f"needs an NVIDIA GPU; PyTorch {torch.__version__} sees none"),
]

MICRO = [
    *("model.layers=2", "model.width=64", "model.heads=2", "model.context_tokens=64", "model.hidden=64"),
    *("engine.device=cuda", "engine.dtype=bfloat16", "train.sequences_per_rank=16", "train.steps=60"),
    *("train.log_every_steps=5", "train.eval_every_steps=30", "train.eval_sequences=8"),
    *("train.checkpoint_every_steps=30", "optim.warmup_steps=5", "optim.lr_peak=0.008"),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a corpus of this project's Python files."""
    folder = tmp_path_factory.mktemp("data")
    source = Path(__file__).resolve().parent.parent
    prepare_corpus(source, folder / "corpora" / "stdlib", replace=False, progress=lambda line: None)
    return folder


def make_run(data_dir: Path, name: str, *overrides: str) -> Path:
    folder = data_dir / "runs" / name
    folder.mkdir(parents=True)
    config = apply_overrides(load_recipe("tiny"), [*MICRO, *overrides])
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    return folder


def torchrun(run_dir: Path, processes: int) -> "subprocess.CompletedProcess[str]":
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"),
        *("--max-restarts=0", "-m", "--", "kanctl.trainer.train", "--run-dir", str(run_dir)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "TORCH_EXTENSIONS_DIR": str(run_dir / "extensions")}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)


def records(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_falls_and_the_weights_are_whole(data_dir: Path, processes: int, zero_stage: int) -> None:
    if processes > GPUS:
        pytest.skip(f"needs {processes} GPUs, found {GPUS}")
    run_dir = make_run(data_dir, f"falls-{processes}-{zero_stage}", f"engine.zero_stage={zero_stage}")
    done = torchrun(run_dir, processes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FutureWarning" not in done.stderr
    losses = [record["loss_nats"] for record in records(run_dir, "train")]
    assert losses[0] == pytest.approx(5.55, abs=0.2)
    assert losses[-1] < losses[0] - 1.5
    assert records(run_dir, "end")[-1]["reason"] == "finished"
    model, config = load_model(run_dir)
    assert set(model.state_dict()) == set(KanLM(config.model, seed=1).state_dict())
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    versions = json.loads((run_dir / "versions.json").read_text())
    assert versions["world_size"] == processes
    assert versions["gpus"]
    evaluated = evaluate_run(parse_arguments(["--run-dir", str(run_dir), "--max-bytes", "4096"]))
    assert evaluated["device"] == "cuda"
    [bits] = [row for row in evaluated["measures"] if row["name"] == "bits per byte"]
    assert bits["value"] < 6


@pytest.mark.parametrize("kind", ["muon", "kalman", "kalman-diagonal"])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_optimiser_learns_on_shards(data_dir: Path, processes: int, kind: str) -> None:
    if processes > GPUS:
        pytest.skip(f"needs {processes} GPUs, found {GPUS}")
    run_dir = make_run(data_dir, f"{kind}-{processes}", f"optim.kind={kind}", "engine.zero_stage=2")
    done = torchrun(run_dir, processes)
    assert done.returncode == 0, done.stdout + done.stderr
    losses = [record["loss_nats"] for record in records(run_dir, "train")]
    assert losses[-1] < losses[0] - 1.0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_run_goes_on_from_its_checkpoint(data_dir: Path, processes: int) -> None:
    if processes > GPUS:
        pytest.skip(f"needs {processes} GPUs, found {GPUS}")
    run_dir = make_run(data_dir, f"resumes-{processes}")
    assert torchrun(run_dir, processes).returncode == 0
    before = {record["step"]: record["loss_nats"] for record in records(run_dir, "train")}
    # As if it had been killed after step 30.
    shutil.rmtree(run_dir / "checkpoints" / "step-000060")
    (run_dir / "metrics.jsonl").unlink()
    done = torchrun(run_dir, processes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on from the checkpoint of step 30" in done.stdout
    after = {record["step"]: record["loss_nats"] for record in records(run_dir, "train")}
    assert min(after) == 31
    # GPU sums may differ in their order, never by this much.
    assert after[60] == pytest.approx(before[60], abs=0.1)
    assert whole_checkpoints(run_dir)[-1].name == "step-000060"
