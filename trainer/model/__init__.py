"""The language model: bytes in, next-byte logits out. Knows nothing of data, optimisers or devices."""

from .kan_lm import END_OF_DOCUMENT, KanLM
from .loss import next_token_loss

__all__ = ["END_OF_DOCUMENT", "KanLM", "next_token_loss"]
