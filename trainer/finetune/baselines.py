"""What can be had without a pre-trained model: the commonest class, and a linear model of hashed n-grams.

Letters: N texts, C classes.
"""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

BUCKETS = 1 << 18
# Byte n-grams of these lengths, and words and pairs of words beside them.
NGRAMS = (2, 3, 4, 5)
EPOCHS = 10
BATCH = 128
LR_PEAK = 0.02


def majority_accuracy(train_N: Tensor, validation_N: Tensor) -> float:
    """Accuracy of answering the training rows' commonest class every time; of equals, the first."""
    return float((validation_N == train_N.bincount().argmax()).double().mean())


def ngram_accuracy(
    train: Sequence[bytes], train_N: Tensor, validation: Sequence[bytes], validation_N: Tensor, *, seed: int
) -> float:
    """Accuracy of logistic regression on the n-grams that occur in a text, trained on the training rows alone."""
    classes = int(max(train_N.max(), validation_N.max())) + 1
    weights, bias = _fit([features(text) for text in train], train_N, classes, seed)
    right = 0
    with torch.inference_mode():
        for start in range(0, len(validation), BATCH):
            bags = [features(text) for text in validation[start : start + BATCH]]
            right += int((_logits(bags, weights, bias).argmax(1) == validation_N[start : start + BATCH]).sum())
    return right / len(validation)


def features(text: bytes) -> Tensor:
    """Buckets of the n-grams that a text holds, each once, int64."""
    value = np.frombuffer(b" " + text.lower() + b" ", np.uint8).astype(np.uint64)
    found = [np.array(list(_word_hashes(text)), np.uint64)]
    for length in NGRAMS:
        if len(value) >= length:
            windows = np.lib.stride_tricks.sliding_window_view(value, length)
            # A polynomial that wraps at 64 bits; its upper bits are the mixed ones.
            powers = np.array([(0x9E3779B97F4A7C15 ** (place + 1)) % 2**64 for place in range(length)], np.uint64)
            found.append(((windows * powers).sum(1, dtype=np.uint64)) >> np.uint64(64 - 18))
    return torch.from_numpy(np.unique(np.concatenate(found)).astype(np.int64))


def _word_hashes(text: bytes) -> Iterator[int]:
    words = text.lower().split()
    for word, following in zip(words, [*words[1:], b""], strict=True):
        yield zlib.crc32(word) % BUCKETS
        yield zlib.crc32(word + b" " + following) % BUCKETS


def _fit(bags: Sequence[Tensor], class_N: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights (buckets, C) and bias (C,), by Adam on the cross entropy."""
    weights = nn.Parameter(torch.zeros(BUCKETS, classes))
    bias = nn.Parameter(torch.zeros(classes))
    optimiser = torch.optim.Adam([weights, bias], lr=LR_PEAK)
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.split(torch.randperm(len(bags), generator=generator), BATCH) for _ in range(EPOCHS)]
    order = [index_B for epoch in batches for index_B in epoch]
    for step, index_B in enumerate(order):
        for group in optimiser.param_groups:
            group["lr"] = LR_PEAK * (1 - step / len(order))
        loss = F.cross_entropy(_logits([bags[index] for index in index_B.tolist()], weights, bias), class_N[index_B])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return weights.detach(), bias.detach()


def _logits(bags: Sequence[Tensor], weights: Tensor, bias: Tensor) -> Tensor:
    """(B, C); each text's features have length 1 together, so that long texts do not shout."""
    offsets_B = torch.tensor([0, *(len(bag) for bag in bags[:-1])]).cumsum(0)
    scale_B1 = torch.tensor([max(1, len(bag)) ** -0.5 for bag in bags])[:, None]
    summed: Tensor = F.embedding_bag(torch.cat(list(bags)), weights, offsets_B, mode="sum")
    return summed * scale_B1 + bias
