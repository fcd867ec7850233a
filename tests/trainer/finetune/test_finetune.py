"""The finetune module on a run folder: its figures, what it keeps, what it leaves alone, its errors."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kanctl.trainer.checkpoint import load_model
from kanctl.trainer.finetune.__main__ import default_name, main
from kanctl.trainer.finetune.batches import encode
from kanctl.trainer.finetune.classifier import load_classifier
from kanctl.trainer.finetune.tune import TuneConfig, predict

KEYS = {
    *("run", "checkpoint_step", "finetune", "train_count", "validation_count", "validation_seen_count", "cut_count"),
    *("text_bytes_max", "classes", "steps", "device", "seconds", "measures"),
}
ROW_KEYS = {"task", "name", "value", "unit", "standard_error", "baselines", "count"}


def words(run_dir: Path, write_texts: Callable[..., Path], *more: str) -> list[str]:
    files = ["--train", str(write_texts("train.tsv", 160)), "--validation", str(write_texts("dev.tsv", 60, 3000))]
    return ["--run-dir", str(run_dir), "--device", "cpu", "--json", *files, "--lr", "0.01", "--batch", "16", *more]


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "one line on stdout, the progress elsewhere"
    return dict(json.loads(out))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_texts_that_differ_are_told_apart_beside_three_baselines(
    run_dir: Path, write_texts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(run_dir)
    assert main(words(run_dir, write_texts, "--epochs", "4")) == 0
    found = answer(capsys)
    assert set(found) == KEYS
    (row,) = found["measures"]
    assert set(row) == ROW_KEYS
    assert row["value"] > 0.95
    assert row["count"] == 60
    assert set(row["baselines"]) == {"commonest class", "n-gram regression", "fresh weights, tuned alike"}
    assert row["baselines"]["commonest class"] == pytest.approx(2 / 3, abs=1e-3)
    assert found["classes"][0] == {"label": "calm", "train_count": 106, "validation_count": 40}
    assert found["steps"] == 40
    after = digest(run_dir)
    assert {path: after[path] for path in before} == before, "the run's own files are only read"
    assert {Path(path).name for path in set(after) - set(before)} == {"meta.json", "model.safetensors"}


def test_what_is_kept_gives_the_accuracy_that_was_told(
    run_dir: Path, write_texts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(run_dir, write_texts, "--steps", "6", "--no-fresh-baseline", "--name", "kept")) == 0
    found = answer(capsys)
    assert set(found["measures"][0]["baselines"]) == {"commonest class", "n-gram regression"}
    classifier, labels = load_classifier(run_dir / found["finetune"])
    lines = [line.split("\t") for line in write_texts("dev.tsv", 60, 3000).read_text().splitlines()[1:]]
    guessed = [labels[number] for number in predict(classifier, [encode(line[2].encode(), 24) for line in lines])]
    right = sum(guess == line[0] for guess, line in zip(guessed, lines, strict=True))
    assert found["measures"][0]["value"] == round(right / 60, 4)
    meta = json.loads((run_dir / "finetunes" / "kept" / "meta.json").read_text())
    assert meta["labels"] == labels == ["calm", "loud"]
    assert meta["measures"] == found["measures"]
    assert meta["tuning"]["steps"] == 6


def test_one_seed_gives_one_result(
    run_dir: Path, write_texts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    random_state = torch.random.get_rng_state()
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        main(words(run_dir, write_texts, "--steps", "4", "--no-fresh-baseline", "--name", name, "--seed", seed))
    bytes_of = {name: (run_dir / "finetunes" / name / "model.safetensors").read_bytes() for name in "abc"}
    assert bytes_of["a"] == bytes_of["b"] != bytes_of["c"]
    assert torch.equal(torch.random.get_rng_state(), random_state), "the caller's random numbers are left alone"


def test_a_frozen_model_stays_what_it_was(
    run_dir: Path, write_texts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(run_dir, write_texts, "--freeze", "--steps", "5", "--no-fresh-baseline")) == 0
    found = answer(capsys)
    classifier, _ = load_classifier(run_dir / found["finetune"])
    before, _ = load_model(run_dir)
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]), name
    assert classifier.head.weight.abs().sum() > 0


def test_a_check_tells_what_there_is_and_trains_and_writes_nothing(
    run_dir: Path, write_texts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(run_dir)
    assert main(words(run_dir, write_texts, "--check", "--max-rows", "30")) == 0
    found = answer(capsys)
    assert set(found) == KEYS - {"measures", "seconds"}
    assert (found["train_count"], found["validation_count"]) == (30, 30)
    assert digest(run_dir) == before


def test_long_texts_are_cut_and_counted(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "long.tsv"
    path.write_text(f"sentence\tlabel\n{'x' * 24}\ta\n{'y' * 23}\tb\n")
    assert main(["--run-dir", str(run_dir), "--train", str(path), "--validation", str(path), "--check", "--json"]) == 0
    found = answer(capsys)
    assert (found["cut_count"], found["text_bytes_max"], found["validation_seen_count"]) == (2, 23, 2)


def test_a_name_that_is_taken_is_refused_before_any_training(
    run_dir: Path, write_texts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "finetunes" / "mine").mkdir(parents=True)
    assert main(words(run_dir, write_texts, "--name", "mine")) == 2
    shown = capsys.readouterr()
    assert "finetunes/mine is there already" in shown.err
    assert "step" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("name", "code", "words_shown"),
    [
        ("--train", 2, "could not read"),
        ("--run-dir", 2, "steps there: none yet"),
        ("--checkpoint", 2, "steps there: 3"),
    ],
)
def test_what_is_not_there_is_bad_input_and_nothing_is_left(
    run_dir: Path,
    write_texts: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: int,
    words_shown: str,
) -> None:
    assert main([*words(run_dir, write_texts), name, "7"]) == code
    assert words_shown in capsys.readouterr().err
    assert not (run_dir / "finetunes").exists()


def test_a_training_that_goes_wrong_leaves_no_half_result(
    run_dir: Path, write_texts: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(run_dir, write_texts, "--lr", "1e30", "--steps", "20")) == 1
    assert "the loss is no number" in capsys.readouterr().err
    assert list((run_dir / "finetunes").iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("--epochs", "0"), ("--lr", "nan"), ("--lr", "0"), ("--max-rows", "-1"), ("--name", "../x"), ("--seed", "-1")],
)
def test_numbers_and_names_out_of_range_are_bad_usage(
    tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--run-dir", str(tmp_path), "--train", "a", "--validation", "b", f"{option}={value}"])
    assert caught.value.code == 2
    assert option in capsys.readouterr().err


def test_the_rate_rises_and_falls_in_lines_and_the_last_step_still_moves() -> None:
    config = TuneConfig(lr_peak=1.0, warmup_fraction=0.2)
    assert [round(config.lr_at(step, 10), 3) for step in range(10)] == [
        0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125,
    ]  # fmt: skip
    assert config.steps_for(100) == 3 * 4
    assert TuneConfig(steps=7).steps_for(100) == 7


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"steps": 0}, {"lr_peak": float("inf")}, {"warmup_fraction": 1.0}])
def test_a_tuning_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        TuneConfig(**wrong)


def test_a_result_is_called_after_the_training_file() -> None:
    assert default_name(Path("/data/SST2/train.tsv")) == "sst2-train"
    assert default_name(Path("/____/____.tsv")) == "texts"
