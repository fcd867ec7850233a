"""Checkpoints of a run: written whole before they are pointed to, and readable without DeepSpeed.

<run>/checkpoints/latest                      text, the name of the newest whole checkpoint
<run>/checkpoints/step-000100/meta.json       step, world size, config
<run>/checkpoints/step-000100/model.safetensors
<run>/checkpoints/step-000100/engine/         each rank's optimiser state, for resuming
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .config import RunConfig, from_dict, to_dict
from .engine import Engine
from .errors import CheckpointInvalid, TrainingFailed
from .model import KanLM

LATEST = "latest"
# At least six digits, more from step 1,000,000 on; sorted as numbers, never as text.
STEP_FOLDER = re.compile(r"step-\d{6,}")


def checkpoints_dir(run_dir: Path) -> Path:
    """The folder of a run's checkpoints."""
    return run_dir / "checkpoints"


def save_checkpoint(engine: Engine, run_dir: Path, config: RunConfig, step: int) -> None:
    """Write a checkpoint with all ranks, then point to it, then drop those beyond train.keep_checkpoints.

    Raises TrainingFailed when it cannot be written; what was there before stays.
    """
    folder = checkpoints_dir(run_dir)
    partial = folder / f"step-{step:06d}.part"
    try:
        if engine.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            # Also what a killed run left half written, at whatever step.
            for old in folder.glob("*.part"):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            partial.mkdir()
        engine.barrier()
        engine.save(partial)
        weights = engine.weights()
        engine.barrier()
        if engine.rank == 0:
            save_file(weights, partial / "model.safetensors")
            _complete(engine.world_size, partial, config, step)
            _drop_old(folder, config.train.keep_checkpoints)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        free_mib = shutil.disk_usage(run_dir).free >> 20
        raise TrainingFailed(
            f"the checkpoint of step {step} could not be written to {folder} ({free_mib} MiB free there): {error}",
            "free space there, then kanctl train resume",
        ) from error
    engine.barrier()


def _complete(world_size: int, partial: Path, config: RunConfig, step: int) -> None:
    """Rank 0, when every rank has saved: meta.json, then the checkpoint takes its name."""
    meta = {"step": step, "world_size": world_size, "config": to_dict(config)}
    (partial / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    sync_files(partial)
    final = partial.with_suffix("")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _point_to(final.parent, final.name)


def resume(engine: Engine, run_dir: Path, config: RunConfig) -> int:
    """Take up the newest whole checkpoint; gives its step, 0 when the run has none.

    Raises CheckpointInvalid when it was made by another number of processes or another model, or is damaged.
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
    """The newest whole checkpoint, None when there is none: the one pointed to, else that of the highest step."""
    there = whole_checkpoints(run_dir)
    pointer = checkpoints_dir(run_dir) / LATEST
    if pointer.is_file():
        pointed = checkpoints_dir(run_dir) / pointer.read_text().strip()
        if pointed in there:
            return pointed
    return there[-1] if there else None


def whole_checkpoints(run_dir: Path) -> list[Path]:
    """Folders of the checkpoints that were written to their end, oldest step first."""
    folders = [path.parent for path in checkpoints_dir(run_dir).glob("step-*/meta.json")]
    return sorted((path for path in folders if STEP_FOLDER.fullmatch(path.name)), key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def find_checkpoint(run_dir: Path, checkpoint: str) -> Path:
    """The folder of `last` or of a step. Raises CheckpointInvalid, naming those there are."""
    there = whole_checkpoints(run_dir)
    folder = latest_checkpoint(run_dir) if checkpoint == "last" else None
    if checkpoint.isdecimal():
        folder = next((path for path in there if _step_of(path) == int(checkpoint)), None)
    if folder is None:
        steps = ", ".join(str(_step_of(path)) for path in there) or "none yet"
        raise CheckpointInvalid(
            f"{run_dir}: wanted the checkpoint `last` or a step, found {checkpoint!r}; steps there: {steps}",
            f"--checkpoint {_step_of(there[-1])}" if there else "wait until the run has written one",
        )
    return folder


def load_model(run_dir: Path, checkpoint: str = "last", device: str = "cpu") -> tuple[KanLM, RunConfig]:
    """The model of a checkpoint in float32, ready to evaluate, and the run's config. Raises CheckpointInvalid."""
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
        if not (type(meta["step"]) is type(meta["world_size"]) is int and isinstance(meta["config"]["model"], dict)):
            raise TypeError("wanted numbers `step` and `world_size` and a `config`")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointInvalid(f"{folder}/meta.json cannot be read: {error}", f"remove {folder}") from error
    return meta


def sync_files(folder: Path) -> None:
    """Bring every file to the disk: without it a power cut may leave a checkpoint with its name but not its bytes."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _point_to(folder: Path, name: str) -> None:
    partial = folder / f"{LATEST}.part"
    partial.write_text(name + "\n")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, folder / LATEST)


def _drop_old(folder: Path, keep: int) -> None:
    for path in whole_checkpoints(folder.parent)[:-keep]:
        shutil.rmtree(path)
