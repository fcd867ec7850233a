"""The Kalman filter as a token mixer: what is observed, how noisy it is, and what is read of the estimate.

Letters: B batch, T tokens, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.kalman import KalmanState, kalman_filter, kalman_step
from ..ops.kalman.route import route_kalman
from ..ops.route import Machine, Route
from .frame import Frame

# Gains that channels start with once they have settled: from half of each observation to 1 / 128 of it.
FASTEST_GAIN, SLOWEST_GAIN = 0.5, 1 / 128
# Keeps variances from becoming zero, which would divide by it.
LEAST_VARIANCE = 1e-6
# softplus of this is 1: the noise that all observations start with.
UNIT_LOGIT = math.log(math.expm1(1.0))


class KalmanFilter(nn.Module):
    """out(silu(gate(x)) * h): h filters the channels of observe(x), whose noise is softplus(noise(x)).

    Each channel has a learned drift; tokens say by their noise how much of them is believed. It has 4 D^2 weights, as
    attention has. Source: MODEL.md section 8; trainer/ops/kalman/README.md.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.observe = nn.Linear(width, width, bias=False)
        self.noise = nn.Linear(width, width)
        self.gate = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.drift_logit_D = nn.Parameter(torch.empty(width))

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights that keep the variance; noise 1, and drifts that give channels gains of all time scales."""
        width = self.out.in_features
        spread = width**-0.5
        for layer in (self.observe, self.gate):
            layer.weight.normal_(0, spread, generator=generator)
        self.noise.weight.normal_(0, 0.1 * spread, generator=generator)
        self.noise.bias.fill_(UNIT_LOGIT)
        self.out.weight.normal_(0, spread * output_scale, generator=generator)
        gain_D = torch.logspace(math.log2(FASTEST_GAIN), math.log2(SLOWEST_GAIN), width, base=2, dtype=torch.float64)
        # A filter of noise 1 settles at the gain k for which k^2 / (1 - k) = q.
        self.drift_logit_D.copy_(torch.log(torch.expm1(gain_D**2 / (1 - gain_D))))

    def forward(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """What to add to the residual stream, (B, T, D)."""
        return self._leave(x_BTD, kalman_filter(*self._parts(x_BTD), frame.position_BT)[0])

    def prefill(self, x_BTD: Tensor, frame: Frame) -> tuple[Tensor, KalmanState]:
        """The values of forward, and the state of each row's last document, without gradients."""
        estimate_BTD, state = kalman_filter(*self._parts(x_BTD), frame.position_BT)
        return self._leave(x_BTD, estimate_BTD), state

    @torch.no_grad()
    def step(self, x_BD: Tensor, position_B: Tensor, state: KalmanState) -> tuple[Tensor, KalmanState]:
        """One more token of each row, (B, D), and the next state; position 0 begins a document."""
        estimate_BD, state = kalman_step(*self._parts(x_BD), position_B, state)
        return self._leave(x_BD, estimate_BD), state

    def routes(self, machine: Machine, dtype: str) -> dict[str, Route]:
        """What computes the filter there, and why; `dtype` by torch's name."""
        return {"filter": route_kalman(machine, dtype=dtype)}

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Observations and noises (..., D), drifts (D,), the variances in float32 at least."""
        wide = torch.promote_types(x.dtype, torch.float32)
        noise = F.softplus(self.noise(x).to(wide)) + LEAST_VARIANCE
        return self.observe(x), noise, F.softplus(self.drift_logit_D.to(wide)) + LEAST_VARIANCE

    def _leave(self, x: Tensor, estimate: Tensor) -> Tensor:
        out: Tensor = self.out(F.silu(self.gate(x)) * estimate.to(x.dtype))
        return out
