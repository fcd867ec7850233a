"""A run with one checkpoint, and labelled texts that a glance tells apart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from kanctl.trainer.config import RunConfig, apply_overrides, load_recipe, to_dict
from kanctl.trainer.model import KanLM

SMALL = [
    *("model.layers=1", "model.width=16", "model.heads=2", "model.context_tokens=24", "model.hidden=16"),
    *("optim.warmup_steps=2", "train.steps=8"),
]


@pytest.fixture(scope="session")
def small_config() -> RunConfig:
    return apply_overrides(load_recipe("tiny"), SMALL)


@pytest.fixture
def run_dir(tmp_path: Path, small_config: RunConfig) -> Path:
    """A run whose one checkpoint is an untrained model."""
    folder = tmp_path / "runs" / "small"
    checkpoint = folder / "checkpoints" / "step-000003"
    checkpoint.mkdir(parents=True)
    save_file(KanLM(small_config.model, seed=1).state_dict(), checkpoint / "model.safetensors")
    meta = {"step": 3, "world_size": 1, "config": to_dict(small_config)}
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    (folder / "checkpoints" / "latest").write_text("step-000003\n")
    return folder


@pytest.fixture
def write_texts(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes so many rows: digits are `calm`, capitals `loud`, one in three of the second kind."""

    def write(name: str, rows: int, first: int = 0) -> Path:
        lines = ["label\tnumber\tsentence"]
        for number in range(first, first + rows):
            text = (
                f"{number * 7919 % 9973} {number}" if number % 3 else f"AH {chr(65 + number % 26) * (1 + number % 9)}"
            )
            lines.append(f"{'calm' if number % 3 else 'loud'}\t{number}\t{text}")
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
