"""Arnold diffusion attention as a token mixer: projections, normalisation, decay and state around ops/ada.

Letters: B batch, T tokens, D width, H heads, C head size, W taps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.ada import AdaState, ada, ada_step
from ..ops.ada.route import route_ada
from ..ops.route import Machine, Route
from ..ops.token import token_ada, token_linear
from .frame import Frame

NORM_EPSILON = 1e-6
# The current token's tap starts at softmax(4, 0, 0, 0) = 0.95: nearly no diffusion.
FIRST_TAP_LOGIT = 4.0
# Heads forget 2^-5 to at most 2^-12 of their state at each token: 1 - 2^-(5 + h), as retention has it. More heads
# share that range, because 2^-12 is a memory of 4,096 tokens already. Source: arXiv 2307.08621, section 3.1.
FASTEST, SLOWEST = 5.0, 12.0


class ArnoldDiffusionAttention(nn.Module):
    """Linear attention with decay over diffused keys: the state of a head is C x C, whatever the length.

    Args:
        width: D, divisible into `heads` parts.
        heads: H.
        window: W, how many tokens' keys the diffusion mixes, this one included.
        data_dependent_decay: each token chooses what is kept of the state; starts at the fixed rates.
        chunk: tokens computed at once; changes time and memory, not values.

    Source: MODEL.md section 3; trainer/ops/ada/README.md.
    """

    def __init__(
        self, width: int, heads: int, window: int = 4, data_dependent_decay: bool = False, chunk: int = 64
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"wanted a width divisible by {heads} heads, found {width}")
        self.heads, self.head_size, self.chunk = heads, width // heads, chunk
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.tap_logits_HCW = nn.Parameter(torch.empty(heads, self.head_size, window))
        self.out_norm = nn.RMSNorm(self.head_size, eps=NORM_EPSILON)
        self.decay = nn.Linear(width, heads) if data_dependent_decay else None

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights that keep the variance; nearly no diffusion, and the fixed decays of the heads."""
        spread = self.out.in_features**-0.5
        self.qkv.weight.normal_(0, spread, generator=generator)
        self.out.weight.normal_(0, spread * output_scale, generator=generator)
        self.tap_logits_HCW.zero_()[..., 0].fill_(FIRST_TAP_LOGIT)
        if self.decay is not None:
            self.decay.weight.normal_(0, 0.1 * spread, generator=generator)
            # -softplus(b) = log decay, so b = log(1 / decay - 1).
            self.decay.bias.copy_((-fixed_log_decays(self.heads, torch.float64)).expm1().log())

    def forward(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """What to add to the residual stream, (B, T, D)."""
        return self._mix(x_BTD, frame)[0]

    def prefill(self, x_BTD: Tensor, frame: Frame) -> tuple[Tensor, AdaState]:
        """The values of forward, and the state of each row's last document, without gradients."""
        out_BTD, state = self._mix(x_BTD, frame)
        return out_BTD, AdaState(sum_BHCC=state.sum_BHCC.detach(), tail_BHWC=state.tail_BHWC)

    @torch.no_grad()
    def step(self, x_BD: Tensor, position_B: Tensor, state: AdaState) -> tuple[Tensor, AdaState]:
        """One more token of each row, (B, D), and the next state; position 0 begins a document."""
        q_BHC, k_BHC, v_BHC = (part_BH1C[:, :, 0] for part_BH1C in self._parts(x_BD[:, None]))
        log_decay_BH = self._log_decay(x_BD[:, None])[:, 0]
        mixed_BHC, state = ada_step(q_BHC, k_BHC, v_BHC, self._taps(x_BD.dtype), log_decay_BH, position_B, state)
        return self._leave(mixed_BHC), state

    @torch.no_grad()
    def step_onto(self, x_BD: Tensor, gain_D: Tensor, position_B: Tensor, state: AdaState) -> tuple[Tensor, AdaState]:
        """x plus what `step` gives for x scaled by a norm with that gain, for a row that ops/token serves.

        The state is written over.
        """
        if self.decay is not None:
            normed_BD = F.rms_norm(x_BD, gain_D.shape, gain_D, NORM_EPSILON)
            added_BD, state = self.step(normed_BD, position_B, state)
            return x_BD + added_BD, state
        qkv_BD = token_linear(x_BD, self.qkv.weight, gain_D=gain_D, epsilon=NORM_EPSILON)
        decay = (FASTEST, decay_pace(self.heads))
        mixed_BD = token_ada(
            qkv_BD, self.tap_logits_HCW, position_B, state, self.out_norm.weight, decay, NORM_EPSILON
        )  # fmt: skip
        return token_linear(mixed_BD, self.out.weight, added_BO=x_BD), state

    def routes(self, machine: Machine, dtype: str) -> dict[str, Route]:
        """What computes the attention there, and why; `dtype` by torch's name."""
        return {"attention": route_ada(machine, head_size=self.head_size, dtype=dtype)}

    def _mix(self, x_BTD: Tensor, frame: Frame) -> tuple[Tensor, AdaState]:
        q_BHTC, k_BHTC, v_BHTC = self._parts(x_BTD)
        log_decay_BHT = self._log_decay(x_BTD).transpose(1, 2)
        taps_HCW = self._taps(x_BTD.dtype)
        mixed_BHTC, state = ada(q_BHTC, k_BHTC, v_BHTC, taps_HCW, log_decay_BHT, frame.position_BT, self.chunk)
        return self._leave(mixed_BHTC.transpose(1, 2)), state

    def _parts(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BHTC, k_BHTC, v_BHTC = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        normed = (F.rms_norm(x_BHTC, (self.head_size,), eps=NORM_EPSILON) for x_BHTC in (q_BHTC, k_BHTC))
        return *normed, v_BHTC

    def _taps(self, dtype: torch.dtype) -> Tensor:
        """(H, C, W), each row adding up to one: a step of discrete diffusion, which cannot amplify."""
        wide = torch.promote_types(dtype, torch.float32)
        return torch.softmax(self.tap_logits_HCW.to(wide), -1).to(dtype)

    def _log_decay(self, x_BTD: Tensor) -> Tensor:
        """(B, T, H) of each token, or (1, 1, H); in float32 at least, because decays are close to one."""
        wide = torch.promote_types(x_BTD.dtype, torch.float32)
        if self.decay is None:
            return fixed_log_decays(self.heads, wide, x_BTD.device)[None, None]
        return -F.softplus(self.decay(x_BTD).to(wide))

    def _leave(self, mixed_HC: Tensor) -> Tensor:
        """(..., H, C) to (..., D)."""
        out: Tensor = self.out(self.out_norm(mixed_HC).flatten(-2))
        return out


def fixed_log_decays(heads: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """log(1 - 2^-e) of each head, (H,), e from 5 in steps of one, or closer where there are more than eight heads.

    Made on the device: a copy from the host would be waited for in every pass.
    """
    exponent_H = FASTEST + decay_pace(heads) * torch.arange(heads, dtype=dtype, device=device)
    return torch.log1p(-torch.exp2(-exponent_H))


def decay_pace(heads: int) -> float:
    """How much larger each head's exponent is than that of the one before."""
    return min(1.0, (SLOWEST - FASTEST) / max(1, heads - 1))
