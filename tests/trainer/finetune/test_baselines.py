"""Baselines against values known by hand."""

import pytest
import torch

from kanctl.trainer.finetune.baselines import features, majority_accuracy, ngram_accuracy


def test_the_commonest_class_is_that_of_the_training_rows() -> None:
    assert majority_accuracy(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0, 1])) == 0.25


def test_features_are_of_words_and_of_bytes_each_once() -> None:
    # " ab ": three pairs, two triples, one of four; one word, and the word with nothing behind it.
    assert len(features(b"ab")) == 3 + 2 + 1 + 2
    assert torch.equal(features(b"ab ab ab"), features(b"AB ab  ab".replace(b"  ", b" ")))
    assert len(features(b"x")) == 2 + 1 + 2


def test_n_grams_learn_a_word_that_decides(capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"{'good' if n % 2 else 'bad'} number {n * 37 % 101}".encode() for n in range(200)]
    class_N = torch.tensor([n % 2 for n in range(200)])
    assert ngram_accuracy(texts[:150], class_N[:150], texts[150:], class_N[150:], seed=1) == 1.0
    shuffled = class_N[torch.randperm(200, generator=torch.Generator().manual_seed(1))]
    assert ngram_accuracy(texts[:150], shuffled[:150], texts[150:], class_N[150:], seed=1) < 0.9
