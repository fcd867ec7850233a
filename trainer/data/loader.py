"""Windows of a corpus as tensors: random ones for training, consecutive ones for validation.

Letters: B sequences, T tokens of context. Which window a rank sees depends on seed, step and rank alone, so a resumed
run goes on with the very data it would have seen.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CorpusInvalid
from .shards import END_OF_DOCUMENT, TOKEN, read_manifest, verify_shards


class Corpus:
    """An opened corpus; the shards stay on disk and are mapped into memory."""

    def __init__(self, folder: Path, *, checksums: bool = False) -> None:
        """Raises CorpusInvalid when a shard is missing, short or, with `checksums`, altered."""
        self.folder = folder
        self.manifest = read_manifest(folder)
        verify_shards(folder, self.manifest, checksums=checksums)
        self._shards = {split: self._map(split) for split in ("train", "val")}

    def _map(self, split: str) -> list[np.ndarray]:
        shards = [shard for shard in self.manifest.shards if shard.split == split]
        return [np.memmap(self.folder / shard.name, dtype=TOKEN, mode="r") for shard in shards]

    def training_batch(self, sequences: int, context_tokens: int, *, seed: int, step: int, rank: int) -> Tensor:
        """Random windows of the training split: (B, T + 1), int64. Raises CorpusInvalid when no window fits."""
        starts = [max(0, len(shard) - context_tokens) for shard in self._shards["train"]]
        if not sum(starts):
            raise CorpusInvalid(
                f"{self.folder}: no training shard is longer than the context of {context_tokens} tokens",
                "prepare more text, or a recipe with fewer model.context_tokens",
            )
        random = np.random.default_rng([seed, step, rank])
        ends = np.cumsum(starts)
        batch = np.empty((sequences, context_tokens + 1), np.int64)
        for row, pick in enumerate(random.integers(0, ends[-1], size=sequences)):
            shard = int(np.searchsorted(ends, pick, side="right"))
            start = int(pick - (ends[shard] - starts[shard]))
            batch[row] = self._shards["train"][shard][start : start + context_tokens + 1]
        return torch.from_numpy(batch)

    def training_tokens(self, most: int) -> np.ndarray:
        """The first tokens of the training split, at most so many, int64."""
        parts: list[np.ndarray] = []
        for shard in self._shards["train"]:
            parts.append(shard[: most - sum(len(part) for part in parts)])
        return np.concatenate(parts).astype(np.int64)

    def validation_windows(self, context_tokens: int, most: int | None = None) -> Tensor:
        """The validation split as consecutive windows: (W, T + 1), int64; each token but a rest is a target once.

        Before the first token stands an end-of-document mark, as before every document. The rest that fills no
        window is left out. With `most`, only the first so many windows are read. Raises CorpusInvalid when not one
        window is full.
        """
        there = self.manifest.tokens("val")
        windows = there // context_tokens
        if windows < 1:
            raise CorpusInvalid(
                f"{self.folder}: {there} validation tokens fill no window of {context_tokens}",
                "prepare more text, or a recipe with fewer model.context_tokens",
            )
        wanted = context_tokens * (windows if most is None else min(windows, most))
        parts = [np.array([END_OF_DOCUMENT], TOKEN)]
        for shard in self._shards["val"]:
            parts.append(shard[: wanted + 1 - sum(len(part) for part in parts)])
        tokens = np.concatenate(parts).astype(np.int64)
        return torch.from_numpy(tokens).unfold(0, context_tokens + 1, context_tokens)

    def require_windows(self, context_tokens: int) -> None:
        """Raise CorpusInvalid unless a window of each split fits: asked before a run, not at its first evaluation."""
        self.training_batch(1, context_tokens, seed=0, step=0, rank=0)
        self.validation_windows(context_tokens, 1)
