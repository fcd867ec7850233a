"""One block of the model: a token mixer, then a channel mixer, each added to the residual stream.

Which ones they are is layers.py's to say; a block knows what both kinds have in common.
Letters: B batch, T tokens, D width, F features of the lexer.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import token
from .ada import ArnoldDiffusionAttention
from .attention import CausalAttention
from .edge import NORM_EPSILON
from .frame import Frame
from .grove import Grove
from .rotary import Turns


class TokenMixer(Protocol):
    """What mixes tokens: nothing of a later token or another document reaches an output."""

    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw start values; what it adds to the stream is scaled by `output_scale`."""
        ...

    def __call__(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        ...

    def prefill(self, x_BTD: Tensor, frame: Frame) -> tuple[Tensor, Any]:
        """The same values, and the state that `step` goes on from."""
        ...

    def step(self, x_BD: Tensor, position_B: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One more token of each row; position 0 begins a document."""
        ...


class ChannelMixer(Protocol):
    """What mixes the channels of each token by itself."""

    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw start values; what it adds to the stream is scaled by `output_scale`."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        ...


class Block(nn.Module):
    """x + mixer(norm(x)), then x + channel(norm(x)).

    Args:
        width: D.
        mixer: a TokenMixer.
        channel: a ChannelMixer.
        normalise_channel: False for channel mixers that normalise their own input, such as edge layers.
        dropout: share of what a mixer adds that is set to zero in training.
    """

    def __init__(
        self, width: int, mixer: nn.Module, channel: nn.Module, *, normalise_channel: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(width, eps=NORM_EPSILON)
        self.mixer = mixer
        self.channel_norm = nn.RMSNorm(width, eps=NORM_EPSILON) if normalise_channel else nn.Identity()
        self.channel = channel
        self.dropout = dropout

    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw the start values of all weights."""
        self.mixer.start(generator, output_scale)  # type: ignore[operator]
        self.channel.start(generator, output_scale)  # type: ignore[operator]

    def forward(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """The residual stream after this block."""
        x_BTD = x_BTD + self.mix_tokens(x_BTD, frame)
        return x_BTD + self.mix_channels(x_BTD)

    def mix_tokens(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """What the token mixer adds, in the weights' dtype."""
        return self._dropped(self.mixer(self._entering(x_BTD), frame))

    def mix_channels(self, x: Tensor) -> Tensor:
        """What the channel mixer adds to tokens in any shape (..., D), in the weights' dtype."""
        return self._dropped(self.channel(self.channel_norm(x.to(self.mixer_norm.weight.dtype))))

    @torch.no_grad()
    def prefill(self, x_BTD: Tensor, frame: Frame) -> tuple[Tensor, Any]:
        """The values of mix_tokens, and the mixer's state after the last token."""
        mixed: tuple[Tensor, Any] = self.mixer.prefill(self._entering(x_BTD), frame)  # type: ignore[operator]
        return mixed

    @torch.no_grad()
    def step(self, x_BD: Tensor, position_B: Tensor, state: Any, knowledge_BF: Tensor | None) -> tuple[Tensor, Any]:
        """What the token mixer adds to one more token of each row, and the state to go on from."""
        if isinstance(self.mixer, CausalAttention):
            return self.mixer.step(self._entering(x_BD), position_B, state, knowledge_BF)
        mixed: tuple[Tensor, Any] = self.mixer.step(self._entering(x_BD), position_B, state)  # type: ignore[operator]
        return mixed

    @torch.no_grad()
    def step_through(
        self, x_BD: Tensor, position_B: Tensor, state: Any, knowledge_BF: Tensor | None, turns: Turns | None
    ) -> tuple[Tensor, Any]:
        """The residual stream of one more token of each row after this block, and the mixer's state to go on from.

        For a single row ops/token joins the norm before, and the sum after, with a mixer's or a grove's own work.

        Args:
            turns: those of the places, where there are layers of softmax attention; else None.
        """
        is_joined = token.serves(x_BD, self.mixer_norm.weight) and not self.training
        if is_joined and isinstance(self.mixer, ArnoldDiffusionAttention):
            x_BD, state = self.mixer.step_onto(x_BD, self.mixer_norm.weight, position_B, state)
        elif is_joined and isinstance(self.mixer, CausalAttention) and turns is not None and knowledge_BF is None:
            gain_D = self.mixer_norm.weight
            x_BD, state = self.mixer.step_onto(x_BD, gain_D, NORM_EPSILON, position_B, turns, state)
        else:
            added_BD, state = self.step(x_BD, position_B, state, knowledge_BF)
            x_BD = x_BD + added_BD
        if is_joined and isinstance(self.channel, Grove) and self.channel.has_edges:
            assert isinstance(self.channel_norm, nn.RMSNorm)
            return self.channel.step_onto(x_BD, self.channel_norm.weight), state
        return x_BD + self.mix_channels(x_BD), state

    def _entering(self, x: Tensor) -> Tensor:
        out: Tensor = self.mixer_norm(x.to(self.mixer_norm.weight.dtype))
        return out

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
