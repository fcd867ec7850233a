"""Generation: same seed same bytes, stopping at the end mark, the sliding window, and how a byte is chosen."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.errors import CheckpointInvalid
from kanctl.trainer.generate import SampleConfig, choose, generate
from kanctl.trainer.model import END_OF_DOCUMENT, KanLM
from kanctl.trainer.model_config import ModelConfig

CONFIG = ModelConfig(layers=1, width=16, heads=2, context_tokens=8, hidden=8, vocab_size=260)


def model() -> KanLM:
    return KanLM(CONFIG, seed=1)


def leaning_model(symbol: int) -> KanLM:
    """A model whose likeliest next symbol is always the same: every channel and one row of the table are large."""
    leaning = model()
    with torch.no_grad():
        for block in leaning.blocks:
            for weight in block.parameters():
                weight.zero_()
        leaning.embedding.weight.fill_(1.0)
        leaning.embedding.weight[symbol].fill_(2.0)
    return leaning


def drawn(logits: Tensor, **settings: float) -> set[int]:
    """What comes up in 200 draws."""
    generator = torch.Generator().manual_seed(0)
    return {choose(logits, SampleConfig(**settings), generator) for _ in range(200)}


def test_the_same_seed_writes_the_same_bytes_and_another_does_not() -> None:
    first = bytes(generate(model(), b"def ", SampleConfig(tokens=40, seed=3)))
    assert bytes(generate(model(), b"def ", SampleConfig(tokens=40, seed=3))) == first
    assert bytes(generate(model(), b"def ", SampleConfig(tokens=40, seed=4))) != first


def test_text_longer_than_the_context_goes_on() -> None:
    written = list(generate(model(), b"a prompt longer than the context", SampleConfig(tokens=20, seed=1, top_k=50)))
    assert len(written) <= 20
    assert all(0 <= byte <= 255 for byte in written)


def test_only_the_last_context_tokens_count() -> None:
    config = SampleConfig(tokens=5, temperature=0)
    assert list(generate(model(), b"X" * 9 + b"same end", config)) == list(generate(model(), b"same end", config))


def test_an_empty_prompt_starts_a_document() -> None:
    assert len(list(generate(leaning_model(ord("a")), b"", SampleConfig(tokens=3, temperature=0)))) == 3


def test_writing_stops_at_the_end_of_the_document_without_the_mark() -> None:
    leaning = leaning_model(END_OF_DOCUMENT)
    assert list(generate(leaning, b"x", SampleConfig(tokens=5, temperature=0))) == []


def test_symbols_that_only_pad_the_vocabulary_are_never_written() -> None:
    leaning = leaning_model(259)
    assert all(byte < 256 for byte in generate(leaning, b"x", SampleConfig(tokens=5)))


def test_generating_leaves_gradients_on_for_the_caller() -> None:
    writing = generate(model(), b"x", SampleConfig(tokens=5, temperature=0))
    next(writing)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_temperature_zero_takes_the_likeliest() -> None:
    assert drawn(torch.tensor([0.0, 1.0, 0.9]), temperature=0) == {1}


def test_a_tiny_temperature_does_not_overflow() -> None:
    assert drawn(torch.tensor([0.0, 100.0, 99.0]), temperature=1e-30) == {1}


def test_top_k_draws_from_the_k_likeliest_only() -> None:
    logits = torch.tensor([0.1, 0.3, 0.2, 0.0])
    assert drawn(logits, temperature=1.0, top_k=2) == {1, 2}
    assert drawn(logits, temperature=1.0, top_k=0) == drawn(logits, temperature=1.0, top_k=99) == {0, 1, 2, 3}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_model_gone_wrong_is_named(bad: float) -> None:
    with pytest.raises(CheckpointInvalid, match="not a number"):
        drawn(torch.tensor([0.0, bad]))


@pytest.mark.parametrize("settings", [{"tokens": 0}, {"top_k": -1}, {"temperature": -1.0}, {"temperature": torch.nan}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted tokens >= 1"):
        SampleConfig(**settings)
