"""The sample module on a run folder with a checkpoint: its text, its JSON, its errors."""

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from kanctl.trainer.config import apply_overrides, load_recipe, to_dict
from kanctl.trainer.model import KanLM
from kanctl.trainer.sample import main

SMALL = ["model.layers=1", "model.width=16", "model.heads=2", "model.context_tokens=8", "model.hidden=8"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose one checkpoint is an untrained model: it writes noise."""
    folder = tmp_path_factory.mktemp("run")
    config = apply_overrides(load_recipe("tiny"), SMALL)
    checkpoint = folder / "checkpoints" / "step-000003"
    checkpoint.mkdir(parents=True)
    save_file(KanLM(config.model, seed=1).state_dict(), checkpoint / "model.safetensors")
    meta = {"step": 3, "world_size": 1, "config": to_dict(config)}
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    (folder / "checkpoints" / "latest").write_text("step-000003\n")
    return folder


def words(run_dir: Path, *more: str) -> list[str]:
    return ["--run-dir", str(run_dir), "--device", "cpu", "--tokens", "30", *more]


def test_text_starts_with_the_prompt_and_is_the_same_for_the_same_seed(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(run_dir, "--prompt", "def ", "--seed", "4")) == 0
    first = capsys.readouterr()
    assert first.out.startswith("def ")
    assert first.err == ""
    main(words(run_dir, "--prompt", "def ", "--seed", "4", "--checkpoint", "3"))
    assert capsys.readouterr().out == first.out


def test_json_says_what_was_written_and_how(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(run_dir, "--prompt", "é", "--json", "--top-k", "5", "--temperature", "0.5")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["prompt"], answer["top_k"], answer["temperature"], answer["recipe"]) == ("é", 5, 0.5, "tiny")
    assert answer["bytes"] <= 30
    assert answer["ended"] == ("length" if answer["bytes"] == 30 else "end-of-document")
    # An untrained model writes bytes that are no UTF-8; they are shown, not raised.
    assert len(answer["text"]) <= 30
    assert "\ufffd" in answer["text"]


def test_a_folder_without_a_checkpoint_is_bad_input_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert str(tmp_path) in shown.err


@pytest.mark.parametrize(
    ("option", "value"), [("--tokens", "0"), ("--temperature", "-1"), ("--temperature", "nan"), ("--top-k", "x")]
)
def test_numbers_out_of_range_are_bad_usage(
    tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--run-dir", str(tmp_path), f"{option}={value}"])
    assert caught.value.code == 2
    assert option in capsys.readouterr().err
