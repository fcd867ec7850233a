"""Generation: same seed same bytes, where it stops, prompts of unequal length, and how a byte is chosen."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kanctl.trainer.errors import CheckpointInvalid
from kanctl.trainer.generate import SampleConfig, choose, generate
from kanctl.trainer.model import END_OF_DOCUMENT, KanLM
from kanctl.trainer.model_config import ModelConfig

CONFIG = ModelConfig(layers=1, width=16, heads=2, context_tokens=8, hidden=8, vocab_size=260, mixers=("softmax",))


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


def write(writing: KanLM, prompt: bytes, **settings) -> bytes:
    return generate(writing, [prompt], SampleConfig(**settings))[0].text


def test_the_same_seed_writes_the_same_bytes_and_another_does_not() -> None:
    first = write(model(), b"def ", tokens=40, seed=3)
    assert write(model(), b"def ", tokens=40, seed=3) == first
    assert write(model(), b"def ", tokens=40, seed=4) != first


def test_text_longer_than_the_context_goes_on() -> None:
    written = generate(model(), [b"a prompt longer than the context"], SampleConfig(tokens=40, seed=1, top_k=50))[0]
    assert len(written.text) == 40 or written.ended == "end-of-document"


def test_what_was_read_is_what_the_whole_forward_pass_would_have_read() -> None:
    """While the text fits into the context, greedy bytes are those of forward passes over all of it."""
    wide = KanLM(replace(CONFIG, context_tokens=64), seed=5)
    tokens = [END_OF_DOCUMENT, *b"abc"]
    for _ in range(30):
        tokens.append(int(wide(torch.tensor([tokens]))[0, -1, :257].argmax()))
    assert write(wide, b"abc", tokens=30, temperature=0) == bytes(tokens[4:])


def test_a_prompt_writes_in_company_what_it_writes_alone() -> None:
    wide = KanLM(replace(CONFIG, context_tokens=64, mixers=("softmax",)), seed=1)
    prompts = [b"", b"def f(x):", b"a"]
    together = generate(wide, prompts, SampleConfig(tokens=20, seed=5))
    alone = [write(wide, prompt, tokens=20, seed=5 + row) for row, prompt in enumerate(prompts)]
    assert [written.text for written in together] == alone


def test_no_prompt_writes_nothing() -> None:
    assert generate(model(), [], SampleConfig()) == []


def test_only_the_last_context_tokens_count() -> None:
    config = {"tokens": 4, "temperature": 0}
    assert write(model(), b"X" * 9 + b"same end", **config) == write(model(), b"Y" * 9 + b"same end", **config)


def test_an_empty_prompt_starts_a_document() -> None:
    written = generate(leaning_model(ord("a")), [b""], SampleConfig(tokens=3, temperature=0))[0]
    assert (written.text, written.ended) == (b"aaa", "length")


def test_writing_stops_at_the_end_of_the_document_without_the_mark() -> None:
    written = generate(leaning_model(END_OF_DOCUMENT), [b"x"], SampleConfig(tokens=5, temperature=0))[0]
    assert (written.text, written.ended) == (b"", "end-of-document")


def test_writing_stops_before_the_first_stop() -> None:
    config = SampleConfig(tokens=9, temperature=0, stops=(b"zz", b"aaa", b"aa"))
    written = generate(leaning_model(ord("a")), [b"aa"], config)[0]
    assert (written.text, written.ended) == (b"", "stop")


def test_symbols_that_only_pad_the_vocabulary_are_never_written() -> None:
    assert len(write(leaning_model(259), b"x", tokens=5)) == 5


def test_generating_leaves_gradients_on_for_the_caller() -> None:
    write(model(), b"x", tokens=2)
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


def test_top_p_draws_from_the_fewest_that_add_up_to_p() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert drawn(logits, temperature=1.0, top_p=0.4) == {0}
    assert drawn(logits, temperature=1.0, top_p=0.75) == {0, 1}
    assert drawn(logits, temperature=1.0, top_p=1.0) == {0, 1, 2, 3}


@pytest.mark.parametrize("settings", [{"top_p": 0.0}, {"top_p": 1.5}, {"stops": (b"",)}])
def test_a_nucleus_and_stops_out_of_range_are_refused(settings) -> None:
    with pytest.raises(ValueError, match="wanted 0 < top_p <= 1"):
        SampleConfig(**settings)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_model_gone_wrong_is_named(bad: float) -> None:
    with pytest.raises(CheckpointInvalid, match="not a number"):
        drawn(torch.tensor([0.0, bad]))


@pytest.mark.parametrize("settings", [{"tokens": 0}, {"top_k": -1}, {"temperature": -1.0}, {"temperature": torch.nan}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted tokens >= 1"):
        SampleConfig(**settings)
