"""Checkpoints of a run: written whole before they are pointed to, and readable without DeepSpeed.

<run>/checkpoints/latest                      text, the name of the newest whole checkpoint
<run>/checkpoints/step-000100/meta.json       step, world size, config
<run>/checkpoints/step-000100/model.safetensors
<run>/checkpoints/step-000100/engine/         each rank's optimiser state, for resuming
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from .config import RunConfig, from_dict, to_dict
from .engine import Engine
from .errors import CheckpointInvalid
from .model import KanLM

LATEST = "latest"


def checkpoints_dir(run_dir: Path) -> Path:
    """The folder of a run's checkpoints."""
    return run_dir / "checkpoints"


def save_checkpoint(engine: Engine, run_dir: Path, config: RunConfig, step: int) -> None:
    """Write a checkpoint with all ranks, then point to it, then drop those beyond train.keep_checkpoints."""
    from safetensors.torch import save_file

    folder = checkpoints_dir(run_dir)
    partial = folder / f"step-{step:06d}.part"
    if engine.rank == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    engine.barrier()
    engine.save(partial)
    engine.barrier()
    if engine.rank == 0:
        save_file(engine.weights(), partial / "model.safetensors")
        meta = {"step": step, "world_size": engine.world_size, "config": to_dict(config)}
        (partial / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
        final = folder / f"step-{step:06d}"
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _point_to(folder, final.name)
        _drop_old(folder, config.train.keep_checkpoints)
    engine.barrier()


def resume(engine: Engine, run_dir: Path, config: RunConfig) -> int:
    """Take up the newest whole checkpoint; gives its step, 0 when the run has none.

    Raises CheckpointInvalid when it was made by another number of processes or another model.
    """
    folder = latest_checkpoint(run_dir)
    if folder is None:
        return 0
    meta = _read_meta(folder)
    if meta["world_size"] != engine.world_size:
        raise CheckpointInvalid(
            f"{folder} was made by {meta['world_size']} processes, this run has {engine.world_size}",
            "resume on the same number of processes",
        )
    if meta["config"]["model"] != to_dict(config)["model"]:
        raise CheckpointInvalid(f"{folder} is of another model than config.json", "launch a new run")
    engine.load(folder)
    return int(meta["step"])


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The newest whole checkpoint, None when there is none."""
    pointer = checkpoints_dir(run_dir) / LATEST
    if not pointer.is_file():
        return None
    folder = checkpoints_dir(run_dir) / pointer.read_text().strip()
    return folder if (folder / "meta.json").is_file() else None


def find_checkpoint(run_dir: Path, checkpoint: str) -> Path:
    """The folder of `last` or of a step. Raises CheckpointInvalid, naming those there are."""
    folder = latest_checkpoint(run_dir) if checkpoint == "last" else None
    if checkpoint.isdigit():
        folder = checkpoints_dir(run_dir) / f"step-{int(checkpoint):06d}"
    if folder is None or not (folder / "meta.json").is_file():
        there = ", ".join(sorted(path.parent.name for path in checkpoints_dir(run_dir).glob("step-*/meta.json")))
        raise CheckpointInvalid(f"{run_dir}: no checkpoint {checkpoint!r}; there: {there or 'none yet'}")
    return folder


def load_model(run_dir: Path, checkpoint: str = "last", device: str = "cpu") -> tuple[KanLM, RunConfig]:
    """The model of a checkpoint in float32, ready to evaluate, and the run's config. Raises CheckpointInvalid."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = find_checkpoint(run_dir, checkpoint)
    config = from_dict(_read_meta(folder)["config"], source=str(folder / "meta.json"))
    model = KanLM(config.model, seed=config.seed)
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointInvalid(f"{folder}/model.safetensors cannot be read: {error}", "--checkpoint STEP") from error
    return model.float().to(device).eval(), config


def checkpoint_step(run_dir: Path, checkpoint: str) -> int:
    """The step at which a checkpoint was made."""
    return int(_read_meta(find_checkpoint(run_dir, checkpoint))["step"])


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{folder}/meta.json cannot be read: {error}") from error
    return meta


def _point_to(folder: Path, name: str) -> None:
    partial = folder / f"{LATEST}.part"
    partial.write_text(name + "\n")
    os.replace(partial, folder / LATEST)


def _drop_old(folder: Path, keep: int) -> None:
    whole = sorted(path.parent for path in folder.glob("step-*/meta.json"))
    for path in whole[:-keep]:
        shutil.rmtree(path)
