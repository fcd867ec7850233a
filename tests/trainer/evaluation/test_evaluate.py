"""Bits per byte against values known by hand, and what a run without that checkpoint answers."""

import json
import lzma
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kanctl.cli.commands.train import Task
from kanctl.trainer.checkpoint import save_checkpoint
from kanctl.trainer.config import RunConfig
from kanctl.trainer.data.loader import Corpus
from kanctl.trainer.evaluate import TASK_NAMES, chosen_tasks, main
from kanctl.trainer.evaluation.measures import Measure
from kanctl.trainer.evaluation.tasks import TASKS
from kanctl.trainer.evaluation.text import byte_entropy, two_to


@pytest.fixture
def run_dir(tmp_path: Path, corpus_dir: Path, micro_config: RunConfig, make_engine: Any) -> Path:
    """A run whose model gives every symbol the same probability."""
    shutil.copytree(corpus_dir, tmp_path / "corpora" / "stdlib")
    folder = tmp_path / "runs" / "uniform"
    engine = make_engine(micro_config)
    # The embedding is the output layer too: all logits are 0.
    torch.nn.init.zeros_(engine.model.embedding.weight)
    for step in (4, 8):
        save_checkpoint(engine, folder, micro_config, step)
    return folder


def validation_text(corpus_dir: Path) -> tuple[bytes, int]:
    """The bytes that are predicted, and the tokens."""
    targets = Corpus(corpus_dir).validation_windows(16)[:, 1:].flatten().tolist()
    return bytes(token for token in targets if token < 256), len(targets)


def evaluated(run_dir: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["--run-dir", str(run_dir), "--json", *words]) == 0
    answer = json.loads(capsys.readouterr().out)
    return {**answer, "measures": {row["name"]: row for row in answer["measures"]}}


def test_a_uniform_model_pays_log2_of_257_for_every_token_marks_too(
    run_dir: Path, corpus_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(run_dir, capsys)
    text, tokens = validation_text(corpus_dir)
    assert tokens > len(text)
    assert set(found) == {"run", "checkpoint_step", "device", "seconds", "measures"}
    assert (found["run"], found["checkpoint_step"]) == ("uniform", 8)
    bits, per_token, per_word = found["measures"].values()
    assert (bits["name"], bits["unit"], bits["count"]) == ("bits per byte", "bits/byte", len(text))
    assert bits["value"] == pytest.approx(math.log2(257) * tokens / len(text), rel=1e-5)
    assert (per_token["value"], per_token["count"]) == (pytest.approx(257, rel=1e-4), tokens)
    words = len(text.split())
    assert per_word["count"] == words
    assert math.log2(per_word["value"]) == pytest.approx(math.log2(257) * tokens / words, rel=1e-4)


def test_the_baselines_are_of_the_same_bytes(
    run_dir: Path, corpus_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bits, per_token, _ = evaluated(run_dir, capsys)["measures"].values()
    text, tokens = validation_text(corpus_dir)
    assert bits["baselines"]["xz"] == pytest.approx(8 * len(lzma.compress(text)) / len(text), rel=1e-5)
    assert bits["baselines"]["byte frequency"] == pytest.approx(byte_entropy(text), rel=1e-5)
    assert 0 < bits["baselines"]["n-grams"] < 8
    for name, value in per_token["baselines"].items():
        assert math.log2(value) == pytest.approx(bits["baselines"][name] * len(text) / tokens, rel=1e-4)


@pytest.mark.parametrize("task", [name for name in TASK_NAMES if name != "code"])
def test_every_figure_of_every_task_has_a_baseline(
    run_dir: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    rows = evaluated(run_dir, capsys, "--task", task, "--recall-length", "128")["measures"].values()
    assert rows
    assert all(row["task"] == task and row["baselines"] and row["count"] > 0 for row in rows)


def test_a_measure_without_a_baseline_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="baseline"):
        Measure(task="text", name="alone", value=1.0, unit="bits", count=1, baselines={})


def test_what_no_number_holds_is_null() -> None:
    row = Measure(task="t", name="n", value=two_to(5000), unit="u", count=1, baselines={"b": 2.0}).row()
    assert row["value"] is None
    assert json.loads(json.dumps(row, allow_nan=False))["baselines"] == {"b": 2.0}


def test_the_names_of_the_edge_are_the_tasks() -> None:
    assert tuple(TASKS) == TASK_NAMES
    assert {*TASK_NAMES, "all"} == {task.value for task in Task}
    assert chosen_tasks(None, has_problems=False) == ["text"]
    assert chosen_tasks(["recall", "text"], has_problems=False) == ["text", "recall"]
    assert chosen_tasks(["all"], has_problems=False) == ["text", "tokens", "recall"]
    assert chosen_tasks(["all"], has_problems=True) == list(TASK_NAMES)


def test_code_without_problems_is_bad_input(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(run_dir), "--task", "code"]) == 2
    assert "next: --problems" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--task", "texts"], ["--recall-length", "12"], ["--recall-length", "1e9"]])
def test_wrong_options_are_refused_before_anything_is_read(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--run-dir", str(tmp_path), *words])
    assert refused.value.code == 2


def test_entropy_of_texts_known_by_hand() -> None:
    assert byte_entropy(b"aaaa") == 0
    assert byte_entropy(b"abab") == 1
    assert byte_entropy(bytes(range(256))) == 8
    assert byte_entropy(b"aaab") == pytest.approx(0.8113, abs=1e-4)


def test_less_text_and_an_older_checkpoint_can_be_asked_for(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(run_dir, capsys, "--max-bytes", "40", "--checkpoint", "4")
    # Two windows of 16 tokens fit into 40 bytes.
    assert 30 <= found["measures"]["bits per byte"]["count"] <= 32
    assert found["checkpoint_step"] == 4


def test_without_json_each_figure_has_a_line_with_its_baselines(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(run_dir), "--max-bytes", "1"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [line.partition(":")[0] for line in lines][:2] == ["bits per byte", "perplexity per token"]
    assert all("n-grams" in line and "xz" in line for line in lines)
    assert "validation text: 1 of 1" in shown.err


def test_a_checkpoint_that_is_not_there_is_bad_input_and_those_there_are_named(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(run_dir), "--checkpoint", "5"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "found '5'; steps there: 4, 8" in shown.err
    assert "next: --checkpoint 8" in shown.err


def test_a_missing_corpus_is_bad_input(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(run_dir), "--corpus", str(tmp_path / "nowhere")]) == 2
    assert "no corpus in" in capsys.readouterr().err
