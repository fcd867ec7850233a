"""The language model: bytes in, next-byte logits out. Knows nothing of data, optimisers or devices."""

from .kan_lm import KanLM
from .loss import next_token_loss

__all__ = ["KanLM", "next_token_loss"]
