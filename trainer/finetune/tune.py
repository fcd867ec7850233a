"""Teach a classifier its training texts, and count how many others it sorts right.

Letters: N texts.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import TrainingFailed
from .batches import by_length, one_epoch, stack
from .classifier import Classifier, Pooling

# Texts measured at once.
MEASURED_AT_ONCE = 64
LOGGED_TIMES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """How a classifier is tuned: AdamW, a line up to `lr_peak` and a line down to 0."""

    epochs: int = 3
    """Times that each training text is seen."""
    steps: int | None = None
    """Optimiser steps, whatever `epochs` says."""
    batch: int = 32
    lr_peak: float = 1e-3
    weight_decay: float = 0.01
    """Decoupled, on matrices."""
    warmup_fraction: float = 0.1
    clip_norm: float = 1.0
    pooling: Pooling = "mean"
    frozen: bool = False
    """The head alone learns."""
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, 1 if self.steps is None else self.steps) < 1:
            raise ValueError(f"wanted epochs, steps and batch of at least 1, found {self}")
        if not 0 < self.lr_peak < math.inf or not 0 <= self.warmup_fraction < 1 or self.weight_decay < 0:
            raise ValueError(
                f"wanted a finite lr_peak above 0, 0 <= warmup_fraction < 1, no decay below 0, found {self}"
            )

    def steps_for(self, texts: int) -> int:
        """Optimiser steps for so many training texts."""
        return self.steps or self.epochs * math.ceil(texts / self.batch)

    def lr_at(self, step: int, steps: int) -> float:
        """The rate of a step, counted from 0; the last one still moves."""
        warmup = round(self.warmup_fraction * steps)
        if step < warmup:
            return self.lr_peak * (step + 1) / warmup
        return self.lr_peak * (steps - step) / (steps - warmup)


def tune(
    classifier: Classifier,
    texts: Sequence[Sequence[int]],
    class_N: Tensor,
    config: TuneConfig,
    progress: Callable[[str], None],
) -> None:
    """Train in place on encoded texts and the numbers of their classes. Raises TrainingFailed when the loss is none."""
    steps = config.steps_for(len(texts))
    optimiser = torch.optim.AdamW(_groups(classifier, config.weight_decay), lr=config.lr_peak, betas=(0.9, 0.99))
    device = classifier.head.weight.device
    loss_sum, since = torch.zeros((), device=device), 0
    classifier.train()
    # The model's dropout draws from the global generator: one seed gives one result, and the caller's is left alone.
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for step, index_B in zip(range(steps), _endless(texts, config), strict=False):
            batch = stack(texts, index_B, device)
            loss = F.cross_entropy(classifier(batch.tokens_BT, batch.length_B).float(), class_N[index_B].to(device))
            _update(optimiser, classifier, loss, config.lr_at(step, steps), config.clip_norm)
            loss_sum, since = loss_sum + loss.detach(), since + 1
            if (step + 1) % max(1, steps // LOGGED_TIMES) == 0 or step + 1 == steps:
                mean = float(loss_sum) / since
                if not math.isfinite(mean):
                    raise TrainingFailed(f"the loss is no number at step {step + 1} of {steps}", "a lower --lr")
                progress(f"step {step + 1} of {steps}, loss {mean:.3f} nats")
                loss_sum, since = torch.zeros((), device=device), 0


@torch.inference_mode()
def predict(classifier: Classifier, texts: Sequence[Sequence[int]]) -> Tensor:
    """The number of the likeliest class of each encoded text, int64 (N,) on the CPU."""
    classifier.eval()
    found_N = torch.empty(len(texts), dtype=torch.int64)
    for index_B in by_length(texts, MEASURED_AT_ONCE):
        batch = stack(texts, index_B, classifier.head.weight.device)
        found_N[index_B] = classifier(batch.tokens_BT, batch.length_B).argmax(1).cpu()
    return found_N


def _endless(texts: Sequence[Sequence[int]], config: TuneConfig) -> Iterator[Tensor]:
    epoch = 0
    while True:
        yield from one_epoch(texts, config.batch, config.seed, epoch)
        epoch += 1


def _update(optimiser: torch.optim.Optimizer, classifier: nn.Module, loss: Tensor, lr: float, clip_norm: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(classifier.parameters(), clip_norm)
    optimiser.step()


def _groups(classifier: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and edge weights, none on vectors."""
    learning = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in learning if parameter.ndim >= 2]
    plain = [parameter for parameter in learning if parameter.ndim < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
