"""Texts as rows of tokens: alike in length, so that little is padding, and in an order that follows from the seed.

Letters: B rows of a batch, T tokens of the longest, N texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import END_OF_DOCUMENT

# Batches whose texts are sorted by length among themselves: alike lengths, and yet another mixture each epoch.
BATCHES_SORTED_TOGETHER = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some texts, and where they came from."""

    tokens_BT: Tensor
    """int64; a mark, the text, then marks up to the longest text's length."""
    length_B: Tensor
    """int64, tokens of each row without the padding: the mark and the text."""
    index_B: Tensor
    """int64, the texts' places among all."""


def encode(text: bytes, context_tokens: int) -> list[int]:
    """A document of its own: the mark that stands before every document, and as much of the text as fits."""
    return [END_OF_DOCUMENT, *text[: context_tokens - 1]]


def stack(texts: Sequence[Sequence[int]], index_B: Tensor, device: torch.device | str) -> Batch:
    """One batch of encoded texts. Padding stands behind, where no token of the text can see it."""
    rows = [texts[index] for index in index_B.tolist()]
    length_B = torch.tensor([len(row) for row in rows])
    longest = int(length_B.max())
    tokens_BT = torch.tensor([[*row, *[END_OF_DOCUMENT] * (longest - len(row))] for row in rows])
    return Batch(tokens_BT=tokens_BT.to(device), length_B=length_B.to(device), index_B=index_B)


def one_epoch(texts: Sequence[Sequence[int]], batch: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """The places of each batch's texts: every text once, in an order of this seed and epoch."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order_N = torch.randperm(len(texts), generator=generator)
    lengths_N = torch.tensor([len(text) for text in texts])
    groups = []
    for some in torch.split(order_N, batch * BATCHES_SORTED_TOGETHER):
        by_length = some[lengths_N[some].argsort(stable=True)]
        groups += list(torch.split(by_length, batch))
    for place in torch.randperm(len(groups), generator=generator).tolist():
        yield groups[place]


def by_length(texts: Sequence[Sequence[int]], batch: int) -> Iterator[Tensor]:
    """The places of each batch's texts, shortest first: for measuring."""
    order_N = torch.tensor([len(text) for text in texts]).argsort(stable=True)
    yield from torch.split(order_N, batch)
