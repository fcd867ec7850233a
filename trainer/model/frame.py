"""Where the tokens of a batch stand in their documents: all that a mixer knows besides the channels.

Letters: B batch, T tokens, F features. A document never sees another one, so a row may hold several, or padding before
one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Places of (B, T) tokens. The first token of a row counts as the first of its document."""

    position_BT: Tensor
    """int64, place in the document from 0; a 0 begins a document."""
    is_one_document: bool
    """Each row is one document from its first token on: mixers may take their shorter way."""
    knowledge_BTF: Tensor | None = None
    """int64, what a lexer knows at each token, as lexer.lex_batch gives it, for mixers with a knowledge bias."""

    @property
    def first_BT(self) -> Tensor:
        """int64, for each token the index of its document's first token in the row: token t may see first_t to t."""
        tokens = self.position_BT.shape[1]
        return torch.arange(tokens, device=self.position_BT.device) - self.position_BT


def one_document(batch: int, tokens: int, device: torch.device | str = "cpu") -> Frame:
    """The frame of rows that are one document each."""
    position_T = torch.arange(tokens, device=device)
    return Frame(position_BT=position_T.expand(batch, tokens), is_one_document=True)


def frame_of(tokens_BT: Tensor, end_of_document: int) -> Frame:
    """The frame of token ids in which `end_of_document` is the last token of each document."""
    index_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    begins_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
    begins_BT[:, 1:] = tokens_BT[:, :-1] == end_of_document
    first_BT = torch.where(begins_BT, index_T, 0).cummax(1).values
    return Frame(position_BT=index_T - first_BT, is_one_document=False)
