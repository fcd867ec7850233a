"""Every optimiser, and every component, under DeepSpeed's ZeRO: on one process and on two, shared out and not, resumed.

One launch on each number of processes does all, since importing DeepSpeed takes seconds.
"""

import json
import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from kanctl.trainer.config import RunConfig, apply_overrides, load_recipe, to_dict
from kanctl.trainer.recipe_file import RECIPES_DIR

pytestmark = pytest.mark.slow

KINDS = ("adamw", "muon", "kalman", "kalman-diagonal")
STAGES = (0, 1, 2, 3)
CASES = [*product(KINDS, STAGES, ("float32",)), *product(KINDS, (1, 3), ("bfloat16",))]
# Blocks that run backwards are refused with stage 3.
COMPONENTS = [path for path in sorted((RECIPES_DIR / "components").glob("*.toml")) if path.stem != "reversible"]
SCRIPT = '''
import json, sys
from pathlib import Path
import torch
from kanctl.trainer import engine as engine_module
from kanctl.trainer.config import from_dict
from kanctl.trainer.deepspeed_config import deepspeed_config
from kanctl.trainer.engine import DeepSpeedEngine
from kanctl.trainer.train import end_process

def all_shared(config, world_size):
    """ZeRO 3 leaves small weights on every rank: none is, for this model's are all small."""
    keys = deepspeed_config(config, world_size)
    keys["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return keys

engine_module.deepspeed_config = all_shared
folder = Path(sys.argv[1])
tokens = torch.randint(0, 256, (2, 4, 17), generator=torch.Generator().manual_seed(0))
answer = {}
for name, tree in json.loads((folder / "cases.json").read_text()).items():
    engine = DeepSpeedEngine(from_dict(tree))
    mine = lambda step: tokens[step % 2].chunk(engine.world_size)[engine.rank]
    train = lambda steps: [engine.mean([engine.train_step(mine(step), 3e-3).loss_nats])[0] for step in steps]
    losses = train(range(3))
    saved = folder / f"{name}-{engine.world_size}"
    saved.mkdir(exist_ok=True)
    engine.barrier()
    engine.save(saved)
    engine.barrier()
    went_on = train(range(3, 6)), {key: value.clone() for key, value in engine.weights().items()}
    engine.load(saved)
    resumed = train(range(3, 6)), engine.weights()
    state = engine._optimiser.state
    means = [each[key] for each in state.values() for key in ("exp_avg", "momentum", "mean") if key in each]
    names = [n for n, _ in engine._engine.module.named_parameters() if n.startswith("factors.")]
    answer[name] = {
        "losses": losses + went_on[0],
        "is_same": went_on[0] == resumed[0] and all(torch.equal(v, resumed[1][k]) for k, v in went_on[1].items()),
        "mean_sizes": sum(mean.numel() for mean in means),
        "parameters": sum(p.numel() for p in engine._engine.module.parameters()),
        "factors_in_checkpoint": sorted(n for n in engine.weights() if "factors" in n) == sorted(names),
    }
    if engine.rank == 0:
        (folder / f"answer-{engine.world_size}.json").write_text(json.dumps(answer))
engine.close()
end_process(0)
'''


def case_name(kind: str, stage: int, dtype: str) -> str:
    return f"{kind}-{stage}-{dtype}"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, micro_config: RunConfig) -> dict[int, dict[str, Any]]:
    """What each case gave on one process and on two."""
    folder = tmp_path_factory.mktemp("zero")
    cases = {}
    for kind, stage, dtype in CASES:
        # Two layers that share factors of edges, whose sizes two processes cannot cut evenly.
        words = ["model.layers=2", "model.channel=kan", "model.hidden=9", "model.factor_rank=5", "engine.device=cpu"]
        words += [f"optim.kind={kind}", "optim.refresh_steps=2", f"engine.zero_stage={stage}", f"engine.dtype={dtype}"]
        cases[case_name(kind, stage, dtype)] = to_dict(apply_overrides(micro_config, words))
    for path, stage in product(COMPONENTS, (0, 3)):
        words = ["model.layers=2", "model.width=16", "model.heads=2", "model.hidden=16", "model.context_tokens=16"]
        words += ["train.sequences_per_rank=2", "engine.device=cpu", f"engine.zero_stage={stage}"]
        cases[f"{path.stem}-{stage}"] = to_dict(apply_overrides(load_recipe(path), words))
    (folder / "cases.json").write_text(json.dumps(cases))
    return {processes: run(folder, processes) for processes in (1, 2)}


def run(folder: Path, processes: int) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder)],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        outputs = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(outputs)
    answer: dict[str, Any] = json.loads((folder / f"answer-{processes}.json").read_text())
    return answer


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case_name(*case))
def test_it_learns_and_a_resumed_run_is_the_same_to_the_last_bit(
    answers: dict[int, dict[str, Any]], case: tuple[str, int, str], processes: int
) -> None:
    answer = answers[processes][case_name(*case)]
    assert answer["losses"][-1] < answer["losses"][0] - 0.02
    assert answer["is_same"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case_name(*case))
def test_two_processes_do_what_one_does(answers: dict[int, dict[str, Any]], case: tuple[str, int, str]) -> None:
    one, two = (answers[processes][case_name(*case)]["losses"] for processes in (1, 2))
    # In bfloat16 gradients are summed in another order.
    assert two == pytest.approx(one, abs=2e-4 if case[2] == "float32" else 2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_do_what_whole_weights_do(answers: dict[int, dict[str, Any]], kind: str) -> None:
    losses = [answers[2][case_name(kind, stage, "float32")]["losses"] for stage in STAGES]
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)
    assert losses[2] == pytest.approx(losses[0], abs=2e-4)
    assert losses[3] == pytest.approx(losses[0], abs=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_weight_and_each_shared_factor_has_one_state_and_processes_share_it(
    answers: dict[int, dict[str, Any]], kind: str
) -> None:
    whole = answers[1][case_name(kind, 0, "float32")]
    assert whole["mean_sizes"] == whole["parameters"]
    assert whole["factors_in_checkpoint"]
    for stage in (1, 2, 3):
        sharded = answers[2][case_name(kind, stage, "float32")]
        # Half of all, and the padding that makes shards equally long.
        assert whole["parameters"] / 2 <= sharded["mean_sizes"] < whole["parameters"] / 2 + 40


@pytest.mark.parametrize("component", [path.stem for path in COMPONENTS])
def test_every_component_learns_the_same_with_its_weights_shared_out(
    answers: dict[int, dict[str, Any]], component: str
) -> None:
    whole, shared = (answers[2][f"{component}-{stage}"] for stage in (0, 3))
    assert shared["losses"] == pytest.approx(whole["losses"], abs=2e-4)
    assert shared["is_same"]
