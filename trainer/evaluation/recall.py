"""The task `recall`: finding the value of a key that was shown once, anywhere in a synthetic sequence.

A sequence is lines like `abc=K`: first pairs with different keys, then queries, pairs of the first part again. What is
measured is how often a query's value is the likeliest of the letters.
Source: multi-query associative recall, arXiv 2312.04927. Letters: B sequences, T tokens, S lines of a sequence.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..model import END_OF_DOCUMENT
from .measures import Measure
from .subject import BATCH_TOKENS, Subject

TASK = "recall"
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
LETTERS = 26
KEY_LETTERS = 3
QUERIES = 16
# At least so many answers are asked of each length.
ANSWERS = 256
SEED = 0


def recall_batch(
    batch: int, tokens: int, generator: torch.Generator, *, queries: int = QUERIES, key_letters: int = KEY_LETTERS
) -> tuple[Tensor, Tensor]:
    """Sequences (B, T + 1), int64, each behind an end-of-document mark, and which targets (B, T) are answers.

    Lines that do not fit are left out and line ends fill the rest. Raises ValueError when no pair is left, or more
    pairs fit than there are keys.
    """
    line = key_letters + 3
    pairs = tokens // line - queries
    if not 1 <= pairs <= LETTERS**key_letters:
        wanted = f"{queries} queries and 1 to {LETTERS**key_letters} pairs of {line} bytes"
        raise ValueError(f"wanted room for {wanted}, found {tokens} tokens")
    rows = [_lines(pairs, queries, key_letters, generator) for _ in range(batch)]
    filled = torch.full((batch, tokens + 1), ord("\n"))
    filled[:, 0] = END_OF_DOCUMENT
    filled[:, 1 : 1 + (pairs + queries) * line] = torch.stack(rows).flatten(1)
    place_T = torch.arange(tokens)
    is_answer_T = (place_T % line == key_letters + 1) & (place_T // line >= pairs) & (place_T // line < pairs + queries)
    return filled, is_answer_T.expand(batch, -1)


def _lines(pairs: int, queries: int, key_letters: int, generator: torch.Generator) -> Tensor:
    """The lines of one sequence, (S, key_letters + 3)."""
    keys = torch.randperm(LETTERS**key_letters, generator=generator)[:pairs]
    values = torch.randint(LETTERS, (pairs,), generator=generator)
    order = torch.cat([torch.arange(pairs), torch.randint(pairs, (queries,), generator=generator)])
    spelled = [keys[order] // LETTERS**place % LETTERS + ord("a") for place in range(key_letters)]
    ends = [torch.full_like(order, ord("=")), values[order] + ord("A"), torch.full_like(order, ord("\n"))]
    return torch.stack([*spelled, *ends], 1)


def recall_measures(subject: Subject, lengths: Sequence[int]) -> list[Measure]:
    """The share of right answers at each length, beside guessing. Longer contexts than the trained one are marked."""
    measures = []
    for tokens in lengths:
        right, count = recall_accuracy(subject, tokens)
        subject.progress(f"recall over {tokens} tokens: {right} of {count}")
        note = "" if tokens <= subject.model.config.context_tokens else "beyond the trained context"
        measure = Measure(
            task=TASK, name=f"recall over {tokens} tokens", value=right / count, unit="share of answers", count=count,
            baselines={"guessing": 1 / LETTERS}, note=note,
        )  # fmt: skip
        measures.append(measure)
    return measures


@torch.inference_mode()
def recall_accuracy(subject: Subject, tokens: int) -> tuple[int, int]:
    """Right answers and all answers, over seeded sequences: the value is the likeliest of the letters it could be."""
    model = subject.with_context(tokens)
    generator = torch.Generator().manual_seed(SEED)
    at_once = max(1, BATCH_TOKENS // tokens)
    right = count = 0
    while count < ANSWERS:
        tokens_BT, is_answer_BT = recall_batch(at_once, tokens, generator)
        logits_BTV = model(tokens_BT[:, :-1].to(subject.device))
        letters_N = logits_BTV[..., ord("A") : ord("A") + LETTERS].argmax(-1).cpu()[is_answer_BT] + ord("A")
        is_right_N = letters_N == tokens_BT[:, 1:][is_answer_BT]
        right += int(is_right_N.sum())
        count += len(is_right_N)
    return right, count
