"""Arnold diffusion attention: linear attention with decay, over keys that are diffused along time. README.md.

Three forms with the same values: reference.py direct, `ada` in chunks for whole sequences, `ada_step` token by token.
Letters: B batch, H heads, T tokens, C head size, W taps, N chunks, L tokens of a chunk.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..route import dtype_name, machine_of
from .library import ada_op
from .route import LARGEST_HEAD, route_ada

__all__ = ["AdaState", "ada", "ada_step", "diffuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaState:
    """What a document leaves for its next token; its size does not grow."""

    sum_BHCC: Tensor
    """The decayed sum of f(k~) v^T, in float32 at least."""
    tail_BHWC: Tensor
    """The last W - 1 keys, newest first; zero before the document's start."""


def ada(
    q_BHTC: Tensor,
    k_BHTC: Tensor,
    v_BHTC: Tensor,
    taps_HCW: Tensor,
    log_decay_BHT: Tensor,
    position_BT: Tensor,
    chunk: int = 64,
) -> tuple[Tensor, AdaState]:
    """All outputs of whole sequences, and the state after their last tokens.

    Args:
        q_BHTC, k_BHTC, v_BHTC: queries and keys (normalised by the caller) and values, of one floating dtype.
        taps_HCW: weights of the keys of this token and the W - 1 before it; the caller makes them add up to one.
        log_decay_BHT: at most 0, the logarithm of what is kept of the state at each token; (H, 1) where it is fixed.
        position_BT: int64, places in documents; a 0 begins one, which sees nothing of what came before.
        chunk: L, tokens computed at once in plain PyTorch; memory beyond inputs and outputs is O(T (L + C)) for each
            head. Kernels have a chunk of their own and need O(T C).

    Returns:
        (B, H, T, C) in the values' dtype, and the state. Decays and states are computed in float32 at least.
    """
    if chunk < 1:
        raise ValueError(f"wanted a chunk of at least 1 token, found {chunk}")
    if _has_kernels(q_BHTC):
        return _by_kernels(q_BHTC, k_BHTC, v_BHTC, taps_HCW, log_decay_BHT, position_BT)
    batch, heads, tokens, size = q_BHTC.shape
    wide = torch.promote_types(q_BHTC.dtype, torch.float32)
    key_BHTC = F.silu(diffuse(k_BHTC, taps_HCW, position_BT))
    pad = -tokens % chunk
    first_BT = torch.arange(tokens, device=q_BHTC.device) - position_BT
    # Padding belongs to the last document and changes nothing: its keys and values are zero, its decay is none.
    first_BNL = _pad_last(first_BT, pad).view(batch, -1, chunk)
    decay_BHT = log_decay_BHT.to(wide).expand(batch, heads, tokens)
    decay_BHNL = F.pad(decay_BHT, (0, pad)).view(batch, heads, -1, chunk)
    q_BHNLC, key_BHNLC, v_BHNLC = (
        F.pad(x_BHTC, (0, 0, 0, pad)).view(batch, heads, -1, chunk, size)
        for x_BHTC in (F.silu(q_BHTC), key_BHTC, v_BHTC)
    )
    between_BHNLL = _decay_between(decay_BHNL)
    within_BHNLC = _within(q_BHNLC, key_BHNLC, v_BHNLC, between_BHNLL, first_BNL)
    passed_BHNL = decay_BHNL.cumsum(-1)
    left_BHNL = between_BHNLL[..., -1, :]
    before_BHNCC, last_BHCC = _states(key_BHNLC.to(wide), v_BHNLC.to(wide), left_BHNL, passed_BHNL[..., -1], first_BNL)
    start_N = torch.arange(0, tokens + pad, chunk, device=q_BHTC.device)
    reaches_BHNL = _reach(passed_BHNL, (first_BNL < start_N[:, None])[:, None])
    across_BHNLC = reaches_BHNL[..., None] * (q_BHNLC.to(wide) @ before_BHNCC)
    out_BHTC = ((within_BHNLC.to(wide) + across_BHNLC) * size**-0.5).flatten(2, 3)[:, :, :tokens]
    state = AdaState(sum_BHCC=last_BHCC, tail_BHWC=_tail(k_BHTC, taps_HCW.shape[-1], position_BT))
    return out_BHTC.to(v_BHTC.dtype), state


def _has_kernels(q: Tensor) -> bool:
    if not q.is_cuda:
        return False
    if torch.compiler.is_compiling():
        # The compiler has Triton itself, and cannot trace a look at the machine.
        return q.dtype != torch.float64 and q.shape[-1] <= LARGEST_HEAD
    route = route_ada(machine_of(q.device), head_size=q.shape[-1], dtype=dtype_name(q))
    return route.implementation == "triton"


def _by_kernels(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, taps_HCW: Tensor, log_decay_BHT: Tensor, position_BT: Tensor
) -> tuple[Tensor, AdaState]:
    batch, _, tokens, _ = q_BHTC.shape
    inputs = (
        *(q_BHTC, k_BHTC, v_BHTC, taps_HCW),
        log_decay_BHT.float().expand(q_BHTC.shape[:3]),
        position_BT.expand(batch, tokens),
    )
    out_BHTC, _, _, last_BHCC = ada_op(*(x.contiguous() for x in inputs))
    tail_BHWC = _tail(k_BHTC, taps_HCW.shape[-1], inputs[-1])
    return out_BHTC, AdaState(sum_BHCC=last_BHCC, tail_BHWC=tail_BHWC)


def ada_step(
    q_BHC: Tensor,
    k_BHC: Tensor,
    v_BHC: Tensor,
    taps_HCW: Tensor,
    log_decay_BH: Tensor,
    position_B: Tensor,
    state: AdaState,
) -> tuple[Tensor, AdaState]:
    """One more token of each row: its output (B, H, C) and the next state. Arguments as `ada`'s, without T.

    Without gradients where kernels run.
    """
    if _has_kernels(q_BHC):
        from . import launch

        inputs = (q_BHC, k_BHC, v_BHC, taps_HCW, log_decay_BH.expand(q_BHC.shape[:2]), position_B)
        out_BHC, sum_BHCC, tail_BHWC = launch.ada_step(
            *(x.contiguous() for x in (*inputs, state.sum_BHCC, state.tail_BHWC))
        )
        return out_BHC, AdaState(sum_BHCC=sum_BHCC, tail_BHWC=tail_BHWC)
    goes_on_B111 = (position_B > 0)[:, None, None, None]
    keys_BHWC = torch.cat([k_BHC[:, :, None], torch.where(goes_on_B111, state.tail_BHWC, 0)], 2)
    wide = state.sum_BHCC.dtype
    key_BHC = F.silu((keys_BHWC * taps_HCW.transpose(1, 2)).sum(2)).to(wide)
    kept_BHCC = torch.where(goes_on_B111, state.sum_BHCC, 0) * log_decay_BH.to(wide).exp()[..., None, None]
    sum_BHCC = kept_BHCC + key_BHC[..., :, None] * v_BHC.to(wide)[..., None, :]
    out_BHC = (F.silu(q_BHC).to(wide)[..., None, :] @ sum_BHCC)[..., 0, :] * q_BHC.shape[-1] ** -0.5
    return out_BHC.to(v_BHC.dtype), AdaState(sum_BHCC=sum_BHCC, tail_BHWC=keys_BHWC[:, :, :-1])


def diffuse(k_BHTC: Tensor, taps_HCW: Tensor, position_BT: Tensor) -> Tensor:
    """k~_t = sum over j < W of a_j k_(t-j) within the document: a short causal convolution of each channel."""
    out_BHTC = k_BHTC * taps_HCW[..., 0][:, None]
    for j in range(1, min(taps_HCW.shape[-1], k_BHTC.shape[2])):
        inside_BT = position_BT[:, j:] >= j
        earlier_BHTC = torch.where(inside_BT[:, None, :, None], k_BHTC[:, :, :-j], 0) * taps_HCW[..., j][:, None]
        out_BHTC = out_BHTC + F.pad(earlier_BHTC, (0, 0, j, 0))
    return out_BHTC


def _decay_between(decay_BHNL: Tensor) -> Tensor:
    """[t, s] = the sum of log decay over s < r <= t of the chunk, 0 for t <= s.

    Each sum is made of its own terms: a difference of running sums would hold other documents' rounding errors.
    """
    chunk = decay_BHNL.shape[-1]
    index_L = torch.arange(chunk, device=decay_BHNL.device)
    return torch.where(index_L[:, None] > index_L, decay_BHNL[..., None], 0).cumsum(-2)


def _within(q_BHNLC: Tensor, key_BHNLC: Tensor, v_BHNLC: Tensor, between_BHNLL: Tensor, first_BNL: Tensor) -> Tensor:
    """What each token takes from its own chunk, in the values' dtype."""
    index_NL = torch.arange(first_BNL[0].numel(), device=first_BNL.device).view(first_BNL.shape[1:])
    visible_BNLL = (first_BNL[..., None] <= index_NL[:, None]) & (index_NL[:, None] <= index_NL[..., None])
    weight_BHNLL = _reach(between_BHNLL, visible_BNLL[:, None])
    score_BHNLL = (q_BHNLC @ key_BHNLC.transpose(3, 4)) * weight_BHNLL
    return score_BHNLL.to(v_BHNLC.dtype) @ v_BHNLC


def _states(
    key_BHNLC: Tensor, v_BHNLC: Tensor, left_BHNL: Tensor, passed_BHN: Tensor, first_BNL: Tensor
) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (B, H, N, C, C), and the one after the last.

    Args:
        left_BHNL: the sum of log decay from each token to its chunk's end; passed_BHN: over the whole chunk.
    """
    index_NL = torch.arange(first_BNL[0].numel(), device=first_BNL.device).view(first_BNL.shape[1:])
    of_last_BNL = first_BNL[..., -1:] <= index_NL
    added_BHNCC = (_reach(left_BHNL, of_last_BNL[:, None])[..., None] * key_BHNLC).transpose(3, 4) @ v_BHNLC
    kept_BHN = _reach(passed_BHN, (first_BNL[..., -1] < index_NL[:, 0])[:, None])
    state_BHCC = torch.zeros_like(added_BHNCC[:, :, 0])
    before = []
    for n in range(first_BNL.shape[1]):
        before.append(state_BHCC)
        state_BHCC = kept_BHN[:, :, n, None, None] * state_BHCC + added_BHNCC[:, :, n]
    return torch.stack(before, 2), state_BHCC


def _reach(log_weight: Tensor, is_seen: Tensor) -> Tensor:
    return torch.where(is_seen, log_weight.exp(), 0)


def _pad_last(first_BT: Tensor, pad: int) -> Tensor:
    return torch.cat([first_BT, first_BT[:, -1:].expand(-1, pad)], 1)


def _tail(k_BHTC: Tensor, taps: int, position_BT: Tensor) -> Tensor:
    """The last W - 1 keys of the last document, newest first, (B, H, W - 1, C)."""
    tokens = k_BHTC.shape[2]
    back_W = torch.arange(taps - 1, device=k_BHTC.device)
    last_BHWC = k_BHTC[:, :, (tokens - 1 - back_W).clamp(min=0)]
    return torch.where((back_W <= position_BT[:, -1:])[:, None, :, None], last_BHWC, 0).detach()
