"""A corpus, a small run and an engine that needs no DeepSpeed: what the tests of the training side share."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kanctl.trainer.config import RunConfig, apply_overrides, load_recipe
from kanctl.trainer.engine import StepResult
from kanctl.trainer.errors import CheckpointInvalid
from kanctl.trainer.model import KanLM
from kanctl.trainer.prepare import prepare_corpus

MICRO = [
    *("model.layers=1", "model.width=16", "model.heads=2", "model.context_tokens=16", "model.hidden=8"),
    *("optim.warmup_steps=2", "train.sequences_per_rank=2", "train.eval_sequences=3", "train.steps=8"),
    *("train.log_every_steps=2", "train.eval_every_steps=4", "train.checkpoint_every_steps=4"),
]


class FakeEngine:
    """One rank (or one of several that agree) whose loss is 5 / (steps taken + 1); its state is that count."""

    def __init__(self, config: RunConfig, *, world_size: int = 1, rank: int = 0) -> None:
        self.rank, self.world_size = rank, world_size
        self.model = KanLM(config.model, seed=config.seed)
        self.steps = 0
        self.batches: list[Tensor] = []
        self.rates: list[float] = []
        self.evaluated: list[Tensor] = []
        self.after_step: Callable[[int], None] = lambda step: None
        self.losses: dict[int, float] = {}
        self.grad_norms: dict[int, float | None] = {}

    def train_step(self, tokens_BT: Tensor, lr: float) -> StepResult:
        self.steps += 1
        self.batches.append(tokens_BT)
        self.rates.append(lr)
        self.after_step(self.steps)
        loss = self.losses.get(self.steps, 5 / (self.steps + 1))
        return StepResult(loss_nats=loss, grad_norm=self.grad_norms.get(self.steps, 1.5))

    def evaluate(self, tokens_BT: Tensor) -> float:
        assert len(tokens_BT), "an empty batch has no mean loss"
        self.evaluated.append(tokens_BT)
        return 2.0

    def mean(self, values: list[float]) -> list[float]:
        return values

    def save(self, folder: Path) -> None:
        (folder / f"rank-{self.rank}.json").write_text(json.dumps(self.steps))

    def load(self, folder: Path) -> None:
        try:
            self.steps = json.loads((folder / f"rank-{self.rank}.json").read_text())
        except FileNotFoundError as error:
            raise CheckpointInvalid(str(error)) from error

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def barrier(self) -> None:
        return


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def micro_config() -> RunConfig:
    """Eight steps of a model of a few thousand parameters."""
    return apply_overrides(load_recipe("tiny"), MICRO)


@pytest.fixture
def make_engine() -> type[FakeEngine]:
    """The class of the fake engine."""
    return FakeEngine


@pytest.fixture(scope="session")
def text_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 text files of a few hundred bytes, each of its own."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(120):
        (folder / f"{number:03d}.txt").write_text(
            f"file {number}: " + "".join(f"{number * k % 97} " for k in range(99))
        )
    return folder


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory, text_dir: Path) -> Path:
    """The corpus of text_dir. Tests that damage one copy it first."""
    out = tmp_path_factory.mktemp("data") / "corpora" / "stdlib"
    prepare_corpus(text_dir, out, replace=False, progress=lambda line: None)
    return out


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root that may mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
