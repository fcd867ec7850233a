"""DeepSpeed behind the Engine: one process that imports it does every check, since the import takes seconds."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kanctl.errors import MissingToolError
from kanctl.trainer.config import RunConfig, apply_overrides, to_dict
from kanctl.trainer.engine import pick_device
from kanctl.trainer.model import KanLM

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from kanctl.trainer.config import from_dict
from kanctl.trainer.engine import DeepSpeedEngine
from kanctl.trainer.errors import CheckpointInvalid
from kanctl.trainer.train import end_process

folder, disk = Path(sys.argv[1]), Path(sys.argv[2])
engine = DeepSpeedEngine(from_dict(json.loads((folder / "config.json").read_text())))
from deepspeed import comm
from deepspeed.ops import __compatible_ops__
tokens = torch.arange(34).reshape(2, 17)
results = [engine.train_step(tokens, 1e-2) for _ in range(3)]
engine.save(folder)
[weights_file] = folder.glob("engine/mp_rank_00_model_states.pt")
answer = {
    "compiles": __compatible_ops__["deepspeed_shm_comm"],
    "op": repr(comm.comm.cdb.shm_comm_op),
    "losses": [result.loss_nats for result in results],
    "norms": [result.grad_norm for result in results],
    "eval": engine.evaluate(tokens),
    "mean": engine.mean([1.5, float("nan")]),
    "dtypes": sorted({str(value.dtype) for value in engine.weights().values()}),
    "names": sorted(engine.weights()),
}
def refusal(call, kind):
    try:
        call()
    except kind as error:
        return str(error)
    return None
engine.load(folder)
answer["eval_loaded"] = engine.evaluate(tokens)
weights_file.write_bytes(weights_file.read_bytes()[:1000])
answer["damaged"] = refusal(lambda: engine.load(folder), CheckpointInvalid)
answer["missing"] = refusal(lambda: engine.load(folder / "nowhere"), CheckpointInvalid)
answer["full"] = refusal(lambda: engine.save(disk), OSError) if str(disk) != "." else "not tried"
(folder / "answer.json").write_text(json.dumps(answer))
engine.close()
end_process(0)
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory, micro_config: RunConfig) -> dict[str, Any]:
    """What one bfloat16 engine on the CPU did, and its output."""
    folder = tmp_path_factory.mktemp("engine")
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    config = apply_overrides(micro_config, ["engine.dtype=bfloat16", "engine.device=cpu"])
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        **os.environ,
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
        "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
    }
    words = [sys.executable, "-c", SCRIPT, str(folder), str(disk) if is_mounted else "."]
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, check=False)
    finally:
        if is_mounted:
            subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    answer["stderr"] = done.stderr
    answer["extensions"] = [path.name for path in (folder / "extensions").rglob("*.so")]
    return answer


def test_the_op_that_would_compile_for_a_minute_is_switched_off(answer: dict[str, Any]) -> None:
    assert answer["compiles"] is False
    assert answer["op"] == "None"
    assert answer["extensions"] == []


def test_the_private_name_that_switches_it_off_is_there() -> None:
    from importlib.util import find_spec

    spec = find_spec("deepspeed")
    assert spec is not None
    assert spec.origin is not None
    builder = Path(spec.origin).parent / "ops" / "op_builder" / "cpu" / "comm.py"
    assert 'NAME = "deepspeed_shm_comm"' in builder.read_text()


def test_bfloat16_learns_on_the_cpu(answer: dict[str, Any], micro_config: RunConfig) -> None:
    assert answer["losses"][0] == pytest.approx(5.55, abs=0.1)
    assert answer["losses"][2] < answer["losses"][0]
    assert all(norm > 0 for norm in answer["norms"])
    assert answer["dtypes"] == ["torch.bfloat16"]
    assert answer["names"] == sorted(KanLM(micro_config.model, seed=1).state_dict())


def test_a_mean_passes_on_what_is_no_number(answer: dict[str, Any]) -> None:
    assert answer["mean"][0] == 1.5
    assert answer["mean"][1] != answer["mean"][1]


def test_saved_state_loads_damaged_or_missing_state_is_refused(answer: dict[str, Any]) -> None:
    assert answer["eval_loaded"] == answer["eval"]
    assert "cannot be read" in answer["damaged"]
    assert "nowhere" in answer["missing"]


def test_a_full_disk_is_an_os_error(answer: dict[str, Any]) -> None:
    if answer["full"] == "not tried":
        pytest.skip("needs root that may mount a tmpfs")
    assert answer["full"]


def test_the_log_has_no_warning_of_renamed_collectives(answer: dict[str, Any]) -> None:
    assert "FutureWarning" not in answer["stderr"]


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("gpus", "local_rank"), [(0, "0"), (1, "1")])
def test_a_process_without_a_gpu_of_its_own_says_so(
    monkeypatch: pytest.MonkeyPatch, gpus: int, local_rank: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    with pytest.raises(MissingToolError, match=f"process {local_rank} .* found {gpus}") as caught:
        pick_device("cuda")
    assert "engine.device=cpu" in caught.value.next_step
