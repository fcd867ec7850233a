"""Recall's sequences keep their promises, and models that are known to find or to guess score so."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kanctl.trainer.config import RunConfig
from kanctl.trainer.evaluation.recall import LETTERS, recall_accuracy, recall_batch, recall_measures
from kanctl.trainer.evaluation.subject import Subject
from kanctl.trainer.model import KanLM


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("tokens", "queries", "key_letters"), [(128, 4, 3), (257, 16, 3), (100, 5, 1), (31, 1, 2)])
def test_every_querys_answer_is_the_value_of_its_key_which_was_shown_once(
    tokens: int, queries: int, key_letters: int
) -> None:
    tokens_BT, is_answer_BT = recall_batch(3, tokens, generator(), queries=queries, key_letters=key_letters)
    assert tokens_BT.shape == (3, tokens + 1)
    assert is_answer_BT.shape == (3, tokens)
    assert is_answer_BT.sum(1).tolist() == [queries] * 3
    for row, is_answer in zip(tokens_BT, is_answer_BT, strict=True):
        assert row[0] == 256
        lines = bytes(row[1:].tolist()).decode().split("\n")
        lines = [line for line in lines if line]
        pairs, asked = lines[:-queries], lines[-queries:]
        values = dict(line.split("=") for line in pairs)
        assert len(values) == len(pairs)
        assert all(values[line.split("=")[0]] == line.split("=")[1] for line in asked)
        assert bytes(row[1:][is_answer].tolist()).decode() == "".join(line[-1] for line in asked)


def test_batches_follow_from_the_seed() -> None:
    assert torch.equal(recall_batch(2, 200, generator())[0], recall_batch(2, 200, generator())[0])


@pytest.mark.parametrize(("tokens", "key_letters"), [(60, 3), (96, 3), (400, 1)])
def test_too_little_room_and_too_few_keys_are_refused(tokens: int, key_letters: int) -> None:
    with pytest.raises(ValueError, match=f"found {tokens} tokens"):
        recall_batch(1, tokens, generator(), key_letters=key_letters)


class Finder(torch.nn.Module):
    """Looks the last key up in the row, as a model that recalls perfectly would."""

    config = SimpleNamespace(context_tokens=4096)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        logits = torch.zeros(*tokens_BT.shape, 257)
        for row, tokens in enumerate(tokens_BT.tolist()):
            values: dict[tuple[int, ...], int] = {}
            for place in range(4, len(tokens)):
                if tokens[place] == ord("="):
                    key = tuple(tokens[place - 3 : place])
                    if key in values:
                        logits[row, place, values[key]] = 9.0
                    elif place + 1 < len(tokens):
                        values[key] = tokens[place + 1]
        return logits


def subject(model: Any) -> Any:
    return SimpleNamespace(model=model, device="cpu", with_context=lambda tokens: model, progress=lambda line: None)


def test_a_model_that_looks_up_scores_one() -> None:
    right, count = recall_accuracy(subject(Finder()), 256)
    assert right == count >= 512


def test_a_model_that_says_one_letter_scores_like_guessing_and_the_row_says_what_guessing_is() -> None:
    class Same(torch.nn.Module):
        config = SimpleNamespace(context_tokens=200)

        def forward(self, tokens_BT: Tensor) -> Tensor:
            logits = torch.zeros(*tokens_BT.shape, 257)
            logits[..., ord("K")] = 1.0
            return logits

    near, far = recall_measures(subject(Same()), [200, 256])
    assert near.value == pytest.approx(1 / LETTERS, abs=0.03)
    assert near.baselines == {"guessing": 1 / LETTERS}
    assert (near.note, far.note) == ("", "beyond the trained context")


def test_a_real_model_is_asked_beyond_its_context_with_its_own_weights(micro_config: RunConfig) -> None:
    model = KanLM(micro_config.model, seed=1).eval()
    real = Subject.__new__(Subject)
    real.model, real.device = model, "cpu"
    longer = real.with_context(140)
    tokens_BT = torch.randint(0, 256, (1, 16), generator=generator())
    assert torch.equal(longer(tokens_BT), model(tokens_BT))
    assert longer(torch.zeros(1, 140, dtype=torch.long)).shape == (1, 140, 257)
    assert real.with_context(16) is model
