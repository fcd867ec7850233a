"""Which keys a token meets at which resolution, and the mean keys of blocks.

Letters: B batch, T tokens, H heads, C head size, N blocks of one size in a row (T // size, the most that fit).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Fuse = Literal["softmax", "sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolutions:
    """The window of exact keys and the sizes of the blocks that stand for older ones."""

    window: int
    """The last so many tokens, the token itself among them, are always met one by one."""
    levels: tuple[int, ...]
    """Tokens of a block, one number per level."""
    fuse: Fuse = "softmax"
    """softmax: one softmax over all keys; sum: one per resolution, and the mean of their outputs."""

    def __post_init__(self) -> None:
        if self.window < 1 or not self.levels or min(self.levels) < 1:
            raise ValueError(f"wanted window and levels of at least 1 token, found {self.window} and {self.levels}")
        if self.fuse not in ("softmax", "sum"):
            raise ValueError(f"wanted fuse softmax or sum, found {self.fuse!r}")

    @property
    def reach(self) -> int:
        """The most exact keys that any token meets: the window, and back to the edge of the last old block."""
        return self.window + min(self.levels) - 1

    def old_blocks(self, position: Tensor, size: int) -> Tensor:
        """How many blocks of this size are complete and older than the window of the token at `position`."""
        return (position - self.window + 1).clamp(min=0) // size

    def window_begin(self, position: Tensor) -> Tensor:
        """The place of the first exact key: the end of the last old block of any level, so no token is left out."""
        edges = [self.old_blocks(position, size) * size for size in self.levels]
        return torch.stack(edges).amax(0)


def block_ends(position_BT: Tensor, size: int) -> Tensor:
    """int64 (B, N): the index in the row of the last token of each complete block, in order; T where there is none.

    Blocks are counted from the start of each document: they end where (position + 1) % size == 0.
    """
    batch, tokens = position_BT.shape
    blocks = tokens // size
    index_T = torch.arange(tokens, device=position_BT.device)
    is_end_BT = (position_BT + 1) % size == 0
    # All other tokens write to one column too many, which is cut off: shapes do not depend on values.
    column_BT = torch.where(is_end_BT, is_end_BT.cumsum(1) - 1, blocks)
    end_BM = torch.full((batch, blocks + 1), tokens, device=position_BT.device)
    return end_BM.scatter(1, column_BT, index_T.expand_as(column_BT))[:, :blocks]


def pool_blocks(x_BHTC: Tensor, end_BN: Tensor, size: int) -> Tensor:
    """(B, H, N, C), the mean of the `size` tokens up to each end, summed in float32 at least.

    Args:
        x_BHTC: keys or values.
        end_BN: int64, as block_ends gives them, or (1, N) for all rows; ends beyond the row give some finite mean.
        size: tokens of a block.
    """
    batch, heads, tokens, channels = x_BHTC.shape
    places = torch.arange(1 - size, 1, device=x_BHTC.device)
    index_BM = (end_BN[..., None] + places).clamp(0, tokens - 1).flatten(1)
    picked_BHMC = x_BHTC.gather(2, index_BM[:, None, :, None].expand(batch, heads, -1, channels))
    wide = torch.promote_types(x_BHTC.dtype, torch.float32)
    return torch.unflatten(picked_BHMC, 2, (-1, size)).mean(3, dtype=wide).to(x_BHTC.dtype)
