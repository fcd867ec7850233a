"""What is evaluated: a model on a validation text, and what every task needs of both, computed once.

Letters: W windows, T tokens of a window, B windows at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from ..data.loader import Corpus
from ..model import END_OF_DOCUMENT, KanLM
from .ngram import MOST_TOKENS, Ngram

# Tokens in one pass, whatever the context: memory stays level.
BATCH_TOKENS = 16_384


@dataclass(frozen=True, slots=True)
class Predictions:
    """For each predicted token, in the order of the text: the token, its cost, and what was taken as likeliest."""

    targets: np.ndarray
    nats: np.ndarray
    guesses: np.ndarray


class Subject:
    """A model and the validation text of a corpus.

    Args:
        most_windows: only the first so many windows of the text; None: all.
        progress: called with a line now and then.
    """

    def __init__(
        self,
        model: KanLM,
        corpus: Corpus,
        *,
        device: str,
        most_windows: int | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model, self.device, self.progress = model, device, progress
        self._corpus = corpus
        self._windows_WT = corpus.validation_windows(model.config.context_tokens, most_windows)

    @cached_property
    def predictions(self) -> Predictions:
        """The model's, each window by itself."""
        parts = []
        batches = torch.split(self._windows_WT, max(1, BATCH_TOKENS // self.model.config.context_tokens))
        for number, batch in enumerate(batches, 1):
            parts.append(predict(self.model, batch.to(self.device)))
            if number % 20 == 0 or number == len(batches):
                self.progress(f"validation text: {number} of {len(batches)} batches")
        return Predictions(
            targets=self.targets,
            nats=np.concatenate([nats for nats, _ in parts]),
            guesses=np.concatenate([guesses for _, guesses in parts]),
        )

    @cached_property
    def baseline(self) -> Predictions:
        """Those of an n-gram model of the training text, which looks across windows' borders."""
        self.progress("n-grams of the training text")
        tokens = np.concatenate([[END_OF_DOCUMENT], self.targets])
        nats, guesses = Ngram(self._corpus.training_tokens(MOST_TOKENS)).score(tokens)
        return Predictions(targets=self.targets, nats=nats, guesses=guesses)

    @cached_property
    def targets(self) -> np.ndarray:
        """Every predicted token, int64."""
        targets: np.ndarray = self._windows_WT[:, 1:].flatten().numpy()
        return targets

    @cached_property
    def text(self) -> bytes:
        """The bytes among the targets."""
        return bytes(self.targets[self.targets != END_OF_DOCUMENT].astype(np.uint8))

    def with_context(self, tokens: int) -> KanLM:
        """The model for sequences of up to so many tokens: itself, or a copy with the same weights."""
        if tokens <= self.model.config.context_tokens:
            return self.model
        longer = KanLM(replace(self.model.config, context_tokens=tokens), seed=0).to(self.device)
        longer.load_state_dict(self.model.state_dict())
        return longer.eval()


@torch.inference_mode()
def predict(model: KanLM, tokens_BT: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cost in nats and likeliest symbol of each token after a row's first, both flat."""
    logits_NV = model(tokens_BT[:, :-1]).float().flatten(0, 1)
    nats_N = F.cross_entropy(logits_NV, tokens_BT[:, 1:].flatten(), reduction="none")
    guesses_N = logits_NV[:, : END_OF_DOCUMENT + 1].argmax(-1)
    return nats_N.double().cpu().numpy(), guesses_N.cpu().numpy()
