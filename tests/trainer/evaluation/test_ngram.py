"""The n-gram baseline against counts made by hand, and against what it must beat."""

import math

import numpy as np
import pytest

from kanctl.trainer.evaluation.ngram import ORDER, SYMBOLS, Ngram
from kanctl.trainer.evaluation.text import byte_entropy


def tokens(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


def by_hand(train: list[int], before: list[int], symbol: int) -> float:
    """The smoothed probability, from the definition."""
    share = 1 / SYMBOLS
    for order in range(min(ORDER, len(before)) + 1):
        context = before[len(before) - order :]
        followers = [
            train[place + order]
            # The first symbol is a context only, like the mark before a text.
            for place in range(max(0, 1 - order), len(train) - order)
            if train[place : place + order] == context
        ]
        if followers:
            kinds = len(set(followers))
            share = (followers.count(symbol) + kinds * share) / (len(followers) + kinds)
    return share


@pytest.mark.parametrize("text", ["abracadabra", "xyz", "aaaaaaaaab", "a"])
def test_costs_are_those_of_the_definition(text: str) -> None:
    train = tokens("abracadabra abracadabra")
    score = tokens("." + text)
    nats, _ = Ngram(train).score(score)
    for place, cost in enumerate(nats):
        wanted = by_hand(train.tolist(), score[: place + 1].tolist(), int(score[place + 1]))
        assert math.exp(-cost) == pytest.approx(wanted, rel=1e-12)


def test_the_guess_is_the_most_frequent_continuation_of_the_longest_context_seen() -> None:
    model = Ngram(tokens(".abcabcabd"))
    _, guesses = model.score(tokens("zabcq"))
    # Nothing is known after z, so the most frequent letter; then a to b, ab to c, abc to a.
    assert bytes(guesses.astype(np.uint8).tolist()) == b"abca"


def test_shares_of_all_symbols_add_up_to_one() -> None:
    model = Ngram(tokens("to be or not to be"))
    total = 0.0
    for symbol in range(SYMBOLS):
        nats, _ = model.score(np.array([*tokens("not to "), symbol]))
        total += math.exp(-nats[-1])
    assert total == pytest.approx(1)


def test_it_beats_byte_frequencies_on_text_and_knows_what_it_read() -> None:
    source = "for name in names:\n    print(name)\n" * 20
    nats, _ = Ngram(tokens(source)).score(tokens("." + source))
    assert nats.mean() / math.log(2) < 0.2 * byte_entropy(source.encode())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_hardly_any_text_is_enough(count: int) -> None:
    nats, guesses = Ngram(np.arange(count)).score(np.arange(10))
    assert len(nats) == len(guesses) == 9
    assert np.isfinite(nats).all()
