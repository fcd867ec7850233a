"""The channel mixer of the baseline: a gated pair of linear layers. Letters: I inputs, O outputs, D width, M hidden."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# E[silu(x)^2] under N(0, 1): the power of a gate.
GATE_POWER = 0.356


class DenseLinear(nn.Linear):
    """A linear layer without bias, with the start of all our layers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    @torch.no_grad()
    def start(self, generator: torch.Generator, scale: float = 1.0) -> None:
        """Draw weights that keep the variance of N(0, 1) inputs times `scale` squared."""
        self.weight.normal_(0, scale * self.in_features**-0.5, generator=generator)


class GatedLinear(nn.Module):
    """leave(silu(gate) * value), the halves of enter(x). Source: SwiGLU, arXiv 2002.05202.

    Args:
        enter: D to 2 M; leave: M to D; both with start(generator, scale). With M = 8/3 D as many weights as a plain
            pair with 4 D between.
    """

    def __init__(self, enter: nn.Module, leave: nn.Module) -> None:
        super().__init__()
        self.enter = enter
        self.leave = leave

    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw start values; under N(0, 1) inputs the output has the variance `output_scale` squared."""
        self.enter.start(generator)  # type: ignore[operator]
        self.leave.start(generator, output_scale * GATE_POWER**-0.5)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        gate, value = self.enter(x).chunk(2, dim=-1)
        out: Tensor = self.leave(F.silu(gate) * value)
        return out
