"""The knowledge bias of attention: what a lexer knows of query and key adds to their score (MODEL.md section 6).

Letters: B batch, T tokens, F features, H heads, R rank, E embedding width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .lexer_rules import FEATURE_SIZES


class KnowledgeBias(nn.Module):
    """Factors P_q and P_k of a bias of rank R per head, from features that are integers.

    The features' embeddings are summed; two linear maps make the factors. P_k starts at 0: no bias.

    Args:
        heads: H.
        rank: R.
        width: E.
        sizes: how many values each feature has.
    """

    def __init__(self, heads: int, rank: int = 8, width: int = 32, sizes: Sequence[int] = FEATURE_SIZES) -> None:
        super().__init__()
        if min(heads, rank, width, *sizes) < 1 or not sizes:
            raise ValueError(f"wanted positive sizes, found heads {heads}, rank {rank}, width {width}, sizes {sizes}")
        self.heads = heads
        self.sizes = tuple(sizes)
        self.embedding = nn.Embedding(sum(sizes), width)
        self.to_query = nn.Linear(width, heads * rank, bias=False)
        self.to_key = nn.Linear(width, heads * rank, bias=False)

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Draw values that give P_q a variance of one, and set P_k to 0."""
        self.embedding.weight.normal_(0, len(self.sizes) ** -0.5, generator=generator)
        self.to_query.weight.normal_(0, self.to_query.in_features**-0.5, generator=generator)
        self.to_key.weight.zero_()

    def forward(self, features_BTF: Tensor) -> tuple[Tensor, Tensor]:
        """P_q and P_k, each (B, H, T, R), in the weights' dtype.

        Args:
            features_BTF: int64, feature f from 0 to sizes[f] - 1.
        """
        if features_BTF.shape[-1] != len(self.sizes):
            raise ValueError(f"wanted {len(self.sizes)} features, found {features_BTF.shape[-1]}")
        # One table for all features: each has rows of its own, after those of the features before it.
        rows_F = torch.tensor([sum(self.sizes[:place]) for place in range(len(self.sizes))])
        known_BTE = self.embedding(features_BTF + rows_F.to(features_BTF.device)).sum(-2)
        query, key = (
            part.unflatten(-1, (self.heads, -1)) for part in (self.to_query(known_BTE), self.to_key(known_BTE))
        )
        return query.transpose(1, 2), key.transpose(1, 2)
