"""Training and validation windows: which tokens, in which order, for whom."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kanctl.trainer.data import shards
from kanctl.trainer.data.loader import Corpus
from kanctl.trainer.data.shards import END_OF_DOCUMENT, TOKEN, Manifest, ShardWriter, write_manifest
from kanctl.trainer.errors import CorpusInvalid


def make_corpus(folder: Path, train: bytes, val: bytes) -> Corpus:
    """One document in each split."""
    writers = {split: ShardWriter(folder, split) for split in ("train", "val")}
    for split, text in (("train", train), ("val", val)):
        writers[split].add(text)
        writers[split].close()
    both = (*writers["train"].shards, *writers["val"].shards)
    write_manifest(folder, Manifest(source="", train_documents=1, val_documents=1, skipped_files=0, shards=both))
    return Corpus(folder, checksums=True)


def test_batches_repeat_for_the_same_seed_step_and_rank_only(corpus_dir: Path) -> None:
    corpus = Corpus(corpus_dir)
    batch = corpus.training_batch(4, 16, seed=1, step=2, rank=0)
    assert batch.shape == (4, 17)
    assert batch.dtype == torch.int64
    assert torch.equal(batch, Corpus(corpus_dir).training_batch(4, 16, seed=1, step=2, rank=0))
    for other in (
        {"seed": 2, "step": 2, "rank": 0},
        {"seed": 1, "step": 3, "rank": 0},
        {"seed": 1, "step": 2, "rank": 1},
    ):
        assert not torch.equal(batch, corpus.training_batch(4, 16, **other))


def test_every_window_is_a_run_of_one_shard_and_each_start_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_TOKENS", 8)
    corpus = make_corpus(tmp_path, bytes(range(19)), b"v" * 20)
    # Shards of 8, 8 and 4 tokens; a window of 3 + 1 tokens has 5, 5 and 1 places.
    tokens = [*range(19), END_OF_DOCUMENT]
    wanted = {tuple(tokens[start : start + 4]) for start in [*range(5), *range(8, 13), 16]}
    batch = corpus.training_batch(500, 3, seed=0, step=1, rank=0)
    assert {tuple(row) for row in batch.tolist()} == wanted


def test_the_only_window_that_fits_is_found(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, b"abc", b"v" * 20)
    assert corpus.training_batch(2, 3, seed=0, step=1, rank=0).tolist() == [[97, 98, 99, 256]] * 2


def test_a_context_longer_than_the_corpus_is_refused_with_the_way_out(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, b"abc", b"v" * 20)
    with pytest.raises(CorpusInvalid, match="longer than the context of 4 tokens") as caught:
        corpus.require_windows(4)
    assert "model.context_tokens" in caught.value.next_step


def test_too_little_validation_text_is_refused(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, b"abc" * 20, b"v")
    with pytest.raises(CorpusInvalid, match="2 validation tokens fill no window of 3"):
        corpus.require_windows(3)


@pytest.mark.parametrize("shard_tokens", [7, 1000])
def test_validation_targets_are_each_token_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_tokens: int
) -> None:
    monkeypatch.setattr(shards, "SHARD_TOKENS", shard_tokens)
    text = bytes(range(1, 30))
    corpus = make_corpus(tmp_path, b"t" * 20, text)
    windows = corpus.validation_windows(4)
    assert windows.dtype == torch.int64
    # 30 tokens: seven windows, and a rest of two that fills none.
    assert windows.shape == (7, 5)
    assert windows[:, 1:].flatten().tolist() == list(range(1, 29))
    assert windows[:, 0].tolist() == [END_OF_DOCUMENT, *range(4, 28, 4)]
    assert torch.equal(corpus.validation_windows(4, 3), windows[:3])
    assert torch.equal(corpus.validation_windows(4, 99), windows)


def test_a_corpus_of_damaged_shards_does_not_open(tmp_path: Path) -> None:
    make_corpus(tmp_path, b"t" * 20, b"v" * 20)
    tokens = np.fromfile(tmp_path / "train-00000.bin", TOKEN)
    tokens[:-1].tofile(tmp_path / "train-00000.bin")
    with pytest.raises(CorpusInvalid, match="train-00000"):
        Corpus(tmp_path)
