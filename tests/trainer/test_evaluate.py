"""Bits per byte against values known by hand, and what a run without that checkpoint answers."""

import json
import lzma
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from kanctl.trainer.checkpoint import save_checkpoint
from kanctl.trainer.config import RunConfig
from kanctl.trainer.data.loader import Corpus
from kanctl.trainer.evaluate import byte_entropy, main

KEYS = {
    *("run", "checkpoint_step", "val_bytes", "val_bits_per_byte", "baseline_xz_bits_per_byte"),
    *("baseline_byte_frequency_bits_per_byte", "device", "seconds"),
}


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


def test_a_uniform_model_pays_log2_of_257_for_every_token_marks_too(
    run_dir: Path, corpus_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--run-dir", str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text, tokens = validation_text(corpus_dir)
    assert tokens > len(text)
    assert set(found) == KEYS
    assert found["val_bytes"] == len(text)
    assert found["val_bits_per_byte"] == pytest.approx(math.log2(257) * tokens / len(text), abs=1e-3)
    assert (found["run"], found["checkpoint_step"]) == ("uniform", 8)


def test_the_baselines_are_of_the_same_bytes(
    run_dir: Path, corpus_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--run-dir", str(run_dir), "--json"])
    found = json.loads(capsys.readouterr().out)
    text, _ = validation_text(corpus_dir)
    assert found["baseline_xz_bits_per_byte"] == round(8 * len(lzma.compress(text)) / len(text), 4)
    assert found["baseline_byte_frequency_bits_per_byte"] == round(byte_entropy(text), 4)


def test_entropy_of_texts_known_by_hand() -> None:
    assert byte_entropy(b"aaaa") == 0
    assert byte_entropy(b"abab") == 1
    assert byte_entropy(bytes(range(256))) == 8
    assert byte_entropy(b"aaab") == pytest.approx(0.8113, abs=1e-4)


def test_less_text_and_an_older_checkpoint_can_be_asked_for(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(run_dir), "--json", "--max-bytes", "40", "--checkpoint", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    # Two windows of 16 tokens fit into 40 bytes.
    assert 30 <= found["val_bytes"] <= 32
    assert found["checkpoint_step"] == 4


def test_without_json_each_value_has_a_line(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run-dir", str(run_dir), "--max-bytes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.partition(":")[0] for line in lines} == KEYS


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
