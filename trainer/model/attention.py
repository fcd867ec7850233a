"""Causal softmax attention with rotary positions, closed at document borders, with a cache for decoding.

Letters: B batch, T tokens, D width, H heads, C head size (D / H, even), S slots of the cache, F features, R rank of
the knowledge bias. Queries and keys are C + R wide where there is a knowledge bias.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.attention import cached_attention
from ..ops.token import token_linear, token_turn
from .frame import Frame
from .knowledge import KnowledgeBias
from .rotary import Turns, rotary_turns, rotate

QK_NORM_EPSILON = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionState:
    """The open document's keys and values: slot s holds place s, later slots hold anything finite."""

    key_BHSC: Tensor
    value_BHSC: Tensor
    most: int
    """No row's place is beyond this one. Counted here, since asking the device would wait for it."""

    @property
    def room(self) -> int:
        """So many more steps need no larger cache."""
        return self.key_BHSC.shape[2] - 1 - self.most


class CausalAttention(nn.Module):
    """Each token looks at itself and the earlier ones of its document; PyTorch picks the fused kernel.

    Frames of several documents need a mask of T x T booleans per row, and leave PyTorch fewer kernels to pick from.

    Args:
        width: D, divisible into `heads` parts of even size.
        heads: H.
        qk_norm: scale queries and keys of each head to a root mean square of 1 times a learned gain, before turning.
        knowledge: adds P_q P_k^T to Q K^T; frames then need `knowledge_BTF`.

    Source: MODEL.md sections 3 and 6.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool = False, knowledge: KnowledgeBias | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = checked_head_size(width, heads)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(self.head_size, eps=QK_NORM_EPSILON) if qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(self.head_size, eps=QK_NORM_EPSILON) if qk_norm else nn.Identity()
        self.knowledge = knowledge

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights that keep the variance; the output's are scaled by `output_scale`."""
        spread = self.out.in_features**-0.5
        self.qkv.weight.normal_(0, spread, generator=generator)
        self.out.weight.normal_(0, spread * output_scale, generator=generator)
        if self.knowledge is not None:
            self.knowledge.start(generator)

    def forward(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """What to add to the residual stream, (B, T, D)."""
        return self._mix(*self._parts(x_BTD, positions(frame), frame.knowledge_BTF), frame)

    def prefill(self, x_BTD: Tensor, frame: Frame) -> tuple[Tensor, AttentionState]:
        """The values of forward, and the cache of each row's last document, without gradients."""
        q_BHTC, k_BHTC, v_BHTC = self._parts(x_BTD, positions(frame), frame.knowledge_BTF)
        most = x_BTD.shape[1] - 1
        state = AttentionState(key_BHSC=_cache(k_BHTC, frame), value_BHSC=_cache(v_BHTC, frame), most=most)
        return self._mix(q_BHTC, k_BHTC, v_BHTC, frame), state

    @torch.no_grad()
    def step(
        self, x_BD: Tensor, position_B: Tensor, state: AttentionState, knowledge_BF: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """One more token per row: (B, D) and the state to go on with; the one given is used up (written into).

        Args:
            x_BD: the tokens' channels.
            position_B: int64, their places in their documents, at most one more than the last step's; what lies beyond
                in the cache is forgotten.
            state: as prefill or step gave it. It grows to twice its slots when a place may not fit.
            knowledge_BF: int64, the tokens' features where there is a knowledge bias.
        """
        knowledge_BTF = None if knowledge_BF is None else knowledge_BF[:, None]
        q_BHTC, k_BHTC, v_BHTC = self._parts(x_BD[:, None], position_B[:, None], knowledge_BTF)
        most = state.most + 1
        wanted = grown(state.key_BHSC.shape[2], most)
        key_BHSC = stored(state.key_BHSC, wanted, position_B, k_BHTC[:, :, 0])
        value_BHSC = stored(state.value_BHSC, wanted, position_B, v_BHTC[:, :, 0])
        mixed_BHC = cached_attention(q_BHTC[:, :, 0], key_BHSC, value_BHSC, position_B, self.head_size**-0.5)
        return self.out(mixed_BHC.flatten(1)), AttentionState(key_BHSC=key_BHSC, value_BHSC=value_BHSC, most=most)

    @torch.no_grad()
    def step_onto(
        self, x_BD: Tensor, gain_D: Tensor, epsilon: float, position_B: Tensor, turns: Turns, state: AttentionState
    ) -> tuple[Tensor, AttentionState]:
        """x plus what `step` gives for x scaled by a norm with that gain, for a row that ops/token serves.

        There is no knowledge bias then. `turns` are those of the place, as rotary_turns gives them.
        """
        qkv_BD = token_linear(x_BD, self.qkv.weight, gain_D=gain_D, epsilon=epsilon)
        most = state.most + 1
        slots = grown(state.key_BHSC.shape[2], most)
        key_BHSC, value_BHSC = with_slots(state.key_BHSC, slots), with_slots(state.value_BHSC, slots)
        norms = self.query_norm, self.key_norm
        gains = tuple(norm.weight for norm in norms if isinstance(norm, nn.RMSNorm)) or None
        q_BHC = token_turn(qkv_BD, gains, turns, position_B, key_BHSC, value_BHSC, QK_NORM_EPSILON)  # type: ignore[arg-type]
        mixed_BHC = cached_attention(q_BHC, key_BHSC, value_BHSC, position_B, self.head_size**-0.5)
        out_BD = token_linear(mixed_BHC.flatten(1), self.out.weight, added_BO=x_BD)
        return out_BD, AttentionState(key_BHSC=key_BHSC, value_BHSC=value_BHSC, most=most)

    def _parts(self, x_BTD: Tensor, position_BT: Tensor, knowledge_BTF: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys as they meet in the product, and values."""
        qkv = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1))
        q_BHTC, k_BHTC, v_BHTC = qkv.permute(2, 0, 3, 1, 4)
        turns = rotary_turns(position_BT, self.head_size, x_BTD)
        q_BHTC, k_BHTC = rotate(self.query_norm(q_BHTC), turns), rotate(self.key_norm(k_BHTC), turns)
        if self.knowledge is None:
            return q_BHTC, k_BHTC, v_BHTC
        if knowledge_BTF is None:
            raise ValueError("wanted features of the tokens for the knowledge bias, found none")
        more_q_BHTR, more_k_BHTR = self.knowledge(knowledge_BTF)
        # Products add over channels: P_q P_k^T is R more of them, so the fused kernels serve.
        return torch.cat([q_BHTC, more_q_BHTR], -1), torch.cat([k_BHTC, more_k_BHTR], -1), v_BHTC

    def _mix(self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, frame: Frame) -> Tensor:
        mixed_BHTC = F.scaled_dot_product_attention(
            q_BHTC,
            k_BHTC,
            v_BHTC,
            attn_mask=None if frame.is_one_document else _visible(frame)[:, None],
            is_causal=frame.is_one_document,
            scale=self.head_size**-0.5,
        )
        out: Tensor = self.out(mixed_BHTC.transpose(1, 2).flatten(2))
        return out


def checked_head_size(width: int, heads: int) -> int:
    """C = width / heads. Raises ValueError unless it is whole and even, because rotary positions turn pairs."""
    if heads < 1 or width < 1 or width % heads or width // heads % 2:
        raise ValueError(f"wanted an even width / heads, found {width} / {heads}")
    return width // heads


def positions(frame: Frame) -> Tensor:
    """The frame's places, (B, T), or (1, T) where all rows have the same ones."""
    return frame.position_BT[:1] if frame.is_one_document else frame.position_BT


def grown(slots: int, most: int) -> int:
    """`slots`, doubled until slot `most` is among them."""
    while slots <= most:
        slots *= 2
    return slots


def stored(cache_BHSC: Tensor, slots: int, place_B: Tensor, new_BHC: Tensor) -> Tensor:
    """The cache with `slots` slots and the row's new entry at each row's place; written in place unless it grows."""
    cache_BHSC = with_slots(cache_BHSC, slots)
    cache_BHSC[torch.arange(len(place_B), device=place_B.device), :, place_B] = new_BHC
    return cache_BHSC


def with_slots(cache_BHSC: Tensor, slots: int) -> Tensor:
    """The cache, or a larger one with the same entries and zeros behind them."""
    more = slots - cache_BHSC.shape[2]
    return F.pad(cache_BHSC, (0, 0, 0, more)) if more > 0 else cache_BHSC


def _visible(frame: Frame) -> Tensor:
    """bool (B, T, T): token t sees s with first_t <= s <= t."""
    index_T = torch.arange(frame.position_BT.shape[1], device=frame.position_BT.device)
    return (frame.first_BT[..., None] <= index_T) & (index_T <= index_T[:, None])


@torch.no_grad()
def _cache(x_BHTC: Tensor, frame: Frame) -> Tensor:
    """(B, H, S, C), the entries of each row's last document from slot 0 on; S is the next power of two above T."""
    tokens = x_BHTC.shape[2]
    slot_S = torch.arange(1 << tokens.bit_length(), device=x_BHTC.device)
    index_BS = (frame.first_BT[:, -1:] + slot_S).clamp(max=tokens - 1)
    return x_BHTC.gather(2, index_BS[:, None, :, None].expand(-1, x_BHTC.shape[1], -1, x_BHTC.shape[3]))
