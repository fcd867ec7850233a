"""One token's way through a block, in few kernels: for decoding, without gradients. README.md.

Letters: B rows, of which there is one; D width, O outputs, H heads, C head size, W taps, E experts, J weights of an
edge, M hidden channels of a subnet.
"""

import torch
from torch import Tensor

from ..ada import AdaState
from ..bspline import SplineGrid
from ..route import dtype_name, machine_of
from .gates import Gates
from .route import route_token

__all__ = ["Gates", "serves", "token_ada", "token_grove", "token_linear", "token_turn"]


def serves(x_BD: Tensor, weight: Tensor) -> bool:
    """Whether the functions here run for these rows and weights; where they do not, layers run one by one."""
    route = route_token(machine_of(x_BD.device), dtype=dtype_name(x_BD), rows=len(x_BD))
    return route.implementation == "triton" and x_BD.dtype == weight.dtype


@torch.no_grad()
def token_linear(
    x_BD: Tensor,
    weight_OD: Tensor,
    *,
    gain_D: Tensor | None = None,
    added_BO: Tensor | None = None,
    epsilon: float = 0.0,
) -> Tensor:
    """(B, O): weight times x, which with a gain is scaled to a root mean square of 1 times it; plus `added`."""
    from . import launch

    added_O = None if added_BO is None else added_BO[0].contiguous()
    return launch.linear(x_BD[0].contiguous(), gain_D, weight_OD.contiguous(), added_O, epsilon)[None]


@torch.no_grad()
def token_grove(
    x_BD: Tensor,
    gain_D: Tensor,
    gates: Gates,
    enter_EJDM: Tensor,
    leave_EJMD: Tensor,
    grid: SplineGrid,
    epsilon: float,
) -> Tensor:
    """(B, D): x plus what a grove of edge layers makes of it scaled to a root mean square of 1 times a gain."""
    from . import launch

    return launch.grove(x_BD[0].contiguous(), gain_D, gates, enter_EJDM, leave_EJMD, grid, epsilon)[None]


@torch.no_grad()
def token_ada(
    qkv_BD: Tensor,
    tap_logits_HCW: Tensor,
    position_B: Tensor,
    state: AdaState,
    gain_C: Tensor,
    decay: tuple[float, float],
    epsilon: float,
) -> Tensor:
    """(B, D): diffusion attention of queries, keys and values (B, 3 D), with its norms. The state is written over.

    Args:
        tap_logits_HCW: of which a softmax makes the taps.
        gain_C: of the norm of each head's output.
        decay: head h forgets 2^-(decay[0] + decay[1] h) of its state.
    """
    from . import launch

    return launch.ada(
        qkv_BD[0].contiguous(), tap_logits_HCW, position_B, state.sum_BHCC, state.tail_BHWC, gain_C, decay, epsilon
    )[None]


@torch.no_grad()
def token_turn(
    qkv_BD: Tensor,
    gains: tuple[Tensor, Tensor] | None,
    turns: tuple[Tensor, Tensor],
    position_B: Tensor,
    key_BHSC: Tensor,
    value_BHSC: Tensor,
    epsilon: float,
) -> Tensor:
    """Queries (B, H, C) of (B, 3 D), turned to their place; turned keys, and values, are written into the caches.

    Args:
        gains: with which queries and keys of each head are scaled to a root mean square of 1 first; None: they are not.
        turns: cosine and sine (B, C / 2) of the place.
        position_B: the place, and the slot.
        key_BHSC, value_BHSC: contiguous caches of qkv's dtype.
    """
    from . import launch

    return launch.turn(qkv_BD[0].contiguous(), gains, turns, position_B, key_BHSC, value_BHSC, epsilon)[None]
