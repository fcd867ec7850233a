"""One block of the model: attention, then the feed-forward of edge layers, each added to the residual stream."""

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .attention import CausalAttention
from .edge import NORM_EPSILON, FeedForward
from .frame import Frame


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(x), whose edge layers normalise by themselves."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)
        self.attention = CausalAttention(config.width, config.heads)
        self.feed_forward = FeedForward(config)

    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw the start values of all weights."""
        self.attention.start(generator, output_scale)
        self.feed_forward.start(generator, output_scale)

    def forward(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """The residual stream after this block."""
        x_BTD = x_BTD + self.attention(self.norm(x_BTD), frame)
        out: Tensor = x_BTD + self.feed_forward(x_BTD)
        return out
