"""The channel mixer of the baseline: a gated pair of linear layers. Letters: D width, M hidden."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedLinear(nn.Module):
    """leave(silu(gate(x)) * value(x)), with (3, D, M) weights. Source: SwiGLU, arXiv 2002.05202.

    Args:
        width: D.
        hidden: M; 8/3 D has as many weights as a plain pair with 4 D between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 2 * hidden, bias=False)
        self.leave = nn.Linear(hidden, width, bias=False)

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights for N(0, 1) inputs; the output has the variance `output_scale` squared.

        Under N(0, 1) gates and values the product has the power E[silu^2] = 0.356, so 1 / 0.356 is given back.
        """
        self.enter.weight.normal_(0, self.enter.in_features**-0.5, generator=generator)
        spread = (0.356 * self.leave.in_features) ** -0.5
        self.leave.weight.normal_(0, spread * output_scale, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        gate, value = self.enter(x).chunk(2, dim=-1)
        out: Tensor = self.leave(F.silu(gate) * value)
        return out
