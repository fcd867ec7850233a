"""Checkpoints: whole before they are pointed to, and refused with a reason when they are not what is wanted."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kanctl.trainer.checkpoint import (
    checkpoint_step,
    checkpoints_dir,
    find_checkpoint,
    latest_checkpoint,
    load_model,
    resume,
    save_checkpoint,
    whole_checkpoints,
)
from kanctl.trainer.config import RunConfig, apply_overrides
from kanctl.trainer.errors import CheckpointInvalid, TrainingFailed


@pytest.fixture
def engine(micro_config: RunConfig, make_engine: Any) -> Any:
    return make_engine(micro_config)


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in checkpoints_dir(run_dir).iterdir())


def test_the_model_comes_back_bit_for_bit(tmp_path: Path, micro_config: RunConfig, engine: Any) -> None:
    save_checkpoint(engine, tmp_path, micro_config, 3)
    model, config = load_model(tmp_path)
    assert config == micro_config
    assert not model.training
    for name, value in engine.weights().items():
        assert torch.equal(model.state_dict()[name], value)
    assert checkpoint_step(tmp_path, "last") == 3


def test_weights_in_bfloat16_are_read_as_float32(tmp_path: Path, micro_config: RunConfig, engine: Any) -> None:
    engine.model.bfloat16()
    save_checkpoint(engine, tmp_path, micro_config, 3)
    model, _ = load_model(tmp_path, "3")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert torch.equal(model.embedding.weight, engine.model.embedding.weight.float())


def test_resume_takes_up_the_newest_and_none_means_step_0(tmp_path: Path, micro_config: RunConfig, engine: Any) -> None:
    assert resume(engine, tmp_path, micro_config) == 0
    for step in (4, 8):
        engine.steps = step
        save_checkpoint(engine, tmp_path, micro_config, step)
    engine.steps = 0
    assert resume(engine, tmp_path, micro_config) == 8
    assert engine.steps == 8


def test_the_newest_so_many_are_kept_counted_as_numbers(tmp_path: Path, micro_config: RunConfig, engine: Any) -> None:
    for step in (7, 999_998, 999_999, 1_000_000):
        save_checkpoint(engine, tmp_path, micro_config, step)
    assert micro_config.train.keep_checkpoints == 2
    assert names(tmp_path) == ["latest", "step-1000000", "step-999999"]
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["step-999999", "step-1000000"]
    assert find_checkpoint(tmp_path, "last").name == "step-1000000"


def test_a_torn_checkpoint_is_ignored_and_cleared_away(tmp_path: Path, micro_config: RunConfig, engine: Any) -> None:
    save_checkpoint(engine, tmp_path, micro_config, 4)
    torn = checkpoints_dir(tmp_path) / "step-000006.part"
    torn.mkdir()
    # Killed between its last file and its name.
    (torn / "meta.json").write_text((checkpoints_dir(tmp_path) / "step-000004" / "meta.json").read_text())
    (checkpoints_dir(tmp_path) / "step-000007").mkdir()
    assert resume(engine, tmp_path, micro_config) == 4
    with pytest.raises(CheckpointInvalid, match=r"steps there: 4$"):
        find_checkpoint(tmp_path, "6")
    save_checkpoint(engine, tmp_path, micro_config, 8)
    assert "step-000006.part" not in names(tmp_path)


@pytest.mark.parametrize("pointer", ["", "step-000099\n", "../../elsewhere\n", None])
def test_a_pointer_to_nothing_falls_back_to_the_highest_step(
    tmp_path: Path, micro_config: RunConfig, engine: Any, pointer: str | None
) -> None:
    for step in (4, 8):
        save_checkpoint(engine, tmp_path, micro_config, step)
    path = checkpoints_dir(tmp_path) / "latest"
    path.unlink() if pointer is None else path.write_text(pointer)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "step-000008"


def test_another_number_of_processes_is_refused(
    tmp_path: Path, micro_config: RunConfig, engine: Any, make_engine: Any
) -> None:
    save_checkpoint(engine, tmp_path, micro_config, 4)
    with pytest.raises(CheckpointInvalid, match="made by 1 processes, this run has 2"):
        resume(make_engine(micro_config, world_size=2), tmp_path, micro_config)


def test_another_model_is_refused_other_intervals_are_not(tmp_path: Path, micro_config: RunConfig, engine: Any) -> None:
    save_checkpoint(engine, tmp_path, micro_config, 4)
    with pytest.raises(CheckpointInvalid, match="another model"):
        resume(engine, tmp_path, apply_overrides(micro_config, ["model.hidden=9"]))
    longer = replace(micro_config, train=replace(micro_config.train, steps=99))
    assert resume(engine, tmp_path, longer) == 4


@pytest.mark.parametrize("wanted", ["5", "first", "-1", "²", ""])
def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(
    tmp_path: Path, micro_config: RunConfig, engine: Any, wanted: str
) -> None:
    for step in (4, 8):
        save_checkpoint(engine, tmp_path, micro_config, step)
    with pytest.raises(CheckpointInvalid, match="steps there: 4, 8"):
        find_checkpoint(tmp_path, wanted)


def test_a_run_without_checkpoints_says_none_yet(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="none yet"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{}", None])
def test_damaged_weights_are_a_checkpoint_error(
    tmp_path: Path, micro_config: RunConfig, engine: Any, content: bytes | None
) -> None:
    save_checkpoint(engine, tmp_path, micro_config, 4)
    path = checkpoints_dir(tmp_path) / "step-000004" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors cannot be read"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"step": 4, "world_size": "1", "config": {}})])
def test_a_damaged_meta_file_is_a_checkpoint_error(
    tmp_path: Path, micro_config: RunConfig, engine: Any, text: str
) -> None:
    save_checkpoint(engine, tmp_path, micro_config, 4)
    (checkpoints_dir(tmp_path) / "step-000004" / "meta.json").write_text(text)
    with pytest.raises(CheckpointInvalid, match=r"meta\.json cannot be read"):
        resume(engine, tmp_path, micro_config)


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path: Path, micro_config: RunConfig, engine: Any) -> None:
    save_checkpoint(engine, tmp_path, micro_config, 4)

    def full(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    engine.save = full
    with pytest.raises(TrainingFailed, match=r"step 8 could not be written .* MiB free there\): .*No space left"):
        save_checkpoint(engine, tmp_path, micro_config, 8)
    assert names(tmp_path) == ["latest", "step-000004"]
