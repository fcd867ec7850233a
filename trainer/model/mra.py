"""The token mixer over ops/mra: projections, rotary positions, block means, and the rings and lists for decoding.

Letters: B batch, T tokens, D width, H heads, C head size, N blocks or block slots of one level, R slots of the ring.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..ops.mra import Fuse, Resolutions, block_ends, multi_resolution_attention, multi_resolution_step, pool_blocks
from ..ops.mra.route import route_mra
from ..ops.route import Machine, Route
from .attention import checked_head_size, grown, positions, stored
from .frame import Frame
from .rotary import rotary_turns, rotate


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelState:
    """One level of the open document. Slot j holds block j; the open block's slot and later ones are not read."""

    key_BHNC: Tensor
    value_BHNC: Tensor
    key_sum_BHC: Tensor
    """Sums over the open block's tokens so far, keys not turned, in float32 at least."""
    value_sum_BHC: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiResolutionState:
    """The open document: a ring of exact keys and values, slot place % R, and its levels. Only block lists grow."""

    key_BHRC: Tensor
    value_BHRC: Tensor
    levels: tuple[LevelState, ...]
    most: int
    """No row's place is beyond this one. Counted here, since asking the device would wait for it."""
    room: int
    """So many more steps need no longer list of blocks."""


class MultiResolutionAttention(nn.Module):
    """Exact keys in a window and mean keys of older blocks, at several sizes, within each document.

    A block's key is the mean of its tokens' keys, then turned by the rotary angle of the block's centre.

    Args:
        width: D, divisible into `heads` parts of even size.
        heads: H.
        window: tokens that are always met one by one; near sqrt(T) for O(T^1.5).
        levels: tokens of a block, one number per level; near sqrt(T) too.
        fuse: softmax over all keys, or the mean of one softmax per resolution (`sum`).

    Source: MODEL.md section 4; trainer/ops/mra/README.md.
    """

    def __init__(self, width: int, heads: int, window: int, levels: tuple[int, ...], fuse: Fuse = "softmax") -> None:
        super().__init__()
        self.heads = heads
        self.head_size = checked_head_size(width, heads)
        self.resolutions = Resolutions(window=window, levels=tuple(levels), fuse=fuse)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    @torch.no_grad()
    def start(self, generator: torch.Generator, output_scale: float) -> None:
        """Draw weights that keep the variance; the output's are scaled by `output_scale`."""
        spread = self.out.in_features**-0.5
        self.qkv.weight.normal_(0, spread, generator=generator)
        self.out.weight.normal_(0, spread * output_scale, generator=generator)

    def forward(self, x_BTD: Tensor, frame: Frame) -> Tensor:
        """What to add to the residual stream, (B, T, D)."""
        return self._mix(*self._parts(x_BTD), positions(frame))

    def prefill(self, x_BTD: Tensor, frame: Frame) -> tuple[Tensor, MultiResolutionState]:
        """The values of forward, and what each row's last document leaves for step, without gradients."""
        q_BHTC, k_BHTC, v_BHTC = self._parts(x_BTD)
        state = self._state(k_BHTC, v_BHTC, frame)
        return self._mix(q_BHTC, k_BHTC, v_BHTC, positions(frame)), state

    @torch.no_grad()
    def step(
        self, x_BD: Tensor, position_B: Tensor, state: MultiResolutionState
    ) -> tuple[Tensor, MultiResolutionState]:
        """One more token per row: (B, D) and the state to go on with; the one given is used up (written into).

        Args:
            x_BD: the tokens' channels.
            position_B: int64, their places in their documents: one more than the last step's, or 0 to begin anew.
            state: as prefill or step gave it. Its lists of blocks double when a place does not fit.
        """
        q_BHTC, k_BHTC, v_BHTC = self._parts(x_BD[:, None])
        q_BHC, k_BHC = (self._turned(x_BHTC, position_B[:, None])[:, :, 0] for x_BHTC in (q_BHTC, k_BHTC))
        ring = self.resolutions.reach
        key_BHRC = stored(state.key_BHRC, ring, position_B % ring, k_BHC)
        value_BHRC = stored(state.value_BHRC, ring, position_B % ring, v_BHTC[:, :, 0])
        most = state.most + 1
        levels = tuple(
            self._level_step(level, size, k_BHTC[:, :, 0], v_BHTC[:, :, 0], position_B, most)
            for level, size in zip(state.levels, self.resolutions.levels, strict=True)
        )
        blocks = [(level.key_BHNC, level.value_BHNC) for level in levels]
        mixed_BHC = multi_resolution_step(q_BHC, (key_BHRC, value_BHRC), blocks, position_B, self.resolutions)
        room = self._places(levels) - 1 - most
        new = MultiResolutionState(key_BHRC=key_BHRC, value_BHRC=value_BHRC, levels=levels, most=most, room=room)
        return self.out(mixed_BHC.flatten(1)), new

    def routes(self, machine: Machine, dtype: str) -> dict[str, Route]:
        """What computes the attention there, and why; `dtype` by torch's name."""
        return {"attention": route_mra(machine, head_size=self.head_size, dtype=dtype)}

    def _parts(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, not turned yet: blocks are pooled first."""
        q_BHTC, k_BHTC, v_BHTC = self.qkv(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q_BHTC, k_BHTC, v_BHTC

    def _turned(self, x_BHTC: Tensor, position_BT: Tensor) -> Tensor:
        return rotate(x_BHTC, rotary_turns(position_BT, self.head_size, x_BHTC))

    def _mix(self, q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, position_BT: Tensor) -> Tensor:
        blocks = []
        for size in self.resolutions.levels:
            end_BN = block_ends(position_BT, size)
            last_BN = position_BT.gather(1, end_BN.clamp(max=position_BT.shape[1] - 1))
            blocks.append(self._pooled(k_BHTC, v_BHTC, end_BN, last_BN, size))
        q_BHTC, k_BHTC = self._turned(q_BHTC, position_BT), self._turned(k_BHTC, position_BT)
        mixed_BHTC = multi_resolution_attention(q_BHTC, k_BHTC, v_BHTC, blocks, position_BT, self.resolutions)
        out: Tensor = self.out(mixed_BHTC.transpose(1, 2).flatten(2))
        return out

    def _pooled(
        self, k_BHTC: Tensor, v_BHTC: Tensor, end_BN: Tensor, last_BN: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of blocks that end at the row's indices `end_BN`, which are the places `last_BN`."""
        key_BHNC = self._turned(pool_blocks(k_BHTC, end_BN, size), last_BN - (size - 1) / 2)
        return key_BHNC, pool_blocks(v_BHTC, end_BN, size)

    @torch.no_grad()
    def _state(self, k_BHTC: Tensor, v_BHTC: Tensor, frame: Frame) -> MultiResolutionState:
        first_B1, last_B1 = frame.first_BT[:, -1:], frame.position_BT[:, -1:]
        slot_R = torch.arange(self.resolutions.reach, device=k_BHTC.device)
        place_BR = last_B1 - (last_B1 - slot_R) % self.resolutions.reach
        # Slots before the document's start take some token: step knows from the place that they are not its own.
        index_BR = (first_B1 + place_BR).clamp(min=0)
        turned_BHTC = self._turned(k_BHTC, positions(frame))
        levels = [self._level_state(k_BHTC, v_BHTC, first_B1, last_B1, size) for size in self.resolutions.levels]
        return MultiResolutionState(
            key_BHRC=_picked(turned_BHTC, index_BR),
            value_BHRC=_picked(v_BHTC, index_BR),
            levels=tuple(levels),
            most=k_BHTC.shape[2] - 1,
            room=self._places(levels) - k_BHTC.shape[2],
        )

    def _places(self, levels: Iterable[LevelState]) -> int:
        """Tokens of a document that all levels have blocks for."""
        return min(level.key_BHNC.shape[2] * size for level, size in zip(levels, self.resolutions.levels, strict=True))

    def _level_state(self, k_BHTC: Tensor, v_BHTC: Tensor, first_B1: Tensor, last_B1: Tensor, size: int) -> LevelState:
        tokens = k_BHTC.shape[2]
        # The next power of two above the number of whole blocks: there is room for the open one.
        slot_N = torch.arange(1 << (tokens // size).bit_length(), device=k_BHTC.device)
        block_last_N = (slot_N + 1) * size - 1
        key_BHNC, value_BHNC = self._pooled(k_BHTC, v_BHTC, first_B1 + block_last_N, block_last_N[None], size)
        is_open_BT = torch.arange(tokens, device=k_BHTC.device) >= tokens - (last_B1 + 1) % size
        sums = [_sum_of(x_BHTC, is_open_BT) for x_BHTC in (k_BHTC, v_BHTC)]
        return LevelState(key_BHNC=key_BHNC, value_BHNC=value_BHNC, key_sum_BHC=sums[0], value_sum_BHC=sums[1])

    def _level_step(
        self, level: LevelState, size: int, k_BHC: Tensor, v_BHC: Tensor, position_B: Tensor, most: int
    ) -> LevelState:
        """The open block's mean so far is written each time: nobody reads it before it is the mean of all."""
        inside_B11 = (position_B % size)[:, None, None]
        key_sum_BHC = torch.where(inside_B11 == 0, 0, level.key_sum_BHC) + k_BHC
        value_sum_BHC = torch.where(inside_B11 == 0, 0, level.value_sum_BHC) + v_BHC
        block_B = position_B // size
        centre_B1 = block_B[:, None] * size + (size - 1) / 2
        mean_BHC = (key_sum_BHC / (inside_B11 + 1)).to(k_BHC.dtype)
        key_BHC = self._turned(mean_BHC[:, :, None], centre_B1)[:, :, 0]
        slots = grown(level.key_BHNC.shape[2], most // size)
        return LevelState(
            key_BHNC=stored(level.key_BHNC, slots, block_B, key_BHC),
            value_BHNC=stored(level.value_BHNC, slots, block_B, (value_sum_BHC / (inside_B11 + 1)).to(v_BHC.dtype)),
            key_sum_BHC=key_sum_BHC,
            value_sum_BHC=value_sum_BHC,
        )


def _picked(x_BHTC: Tensor, index_BR: Tensor) -> Tensor:
    return x_BHTC.gather(2, index_BR[:, None, :, None].expand(-1, x_BHTC.shape[1], -1, x_BHTC.shape[3]))


def _sum_of(x_BHTC: Tensor, is_in_BT: Tensor) -> Tensor:
    wide = torch.promote_types(x_BHTC.dtype, torch.float32)
    return torch.where(is_in_BT[:, None, :, None], x_BHTC, 0).sum(2, dtype=wide)
