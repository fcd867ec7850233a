"""Range attention's Triton kernels as operators of torch's library. Second derivatives are not there: an error.

`range_attention` is one pass and tells its softmax's sum, `ranges_attention` one softmax over the keys of several.
Letters: B rows, H heads, T queries, M keys, C channels.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .launch import RangeInputs


@torch.library.custom_op("kanctl::range_attention", mutates_args=())
def range_attention_op(
    q_BHTC: Tensor, k_BHMC: Tensor, v_BHMC: Tensor, place_BM: Tensor, low_BT: Tensor, high_BT: Tensor,
    scale: float, bias: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What each query takes from the keys with low <= place <= high, (B, H, T, C), and the log of the softmax's sum."""
    from . import launch

    inputs = launch.RangeInputs(q_BHTC, k_BHMC, v_BHMC, place_BM, low_BT, high_BT, scale, bias)
    return launch.range_forward([inputs])


@torch.library.custom_op("kanctl::range_attention_backward", mutates_args=())
def range_attention_backward_op(
    q_BHTC: Tensor, k_BHMC: Tensor, v_BHMC: Tensor, place_BM: Tensor, low_BT: Tensor, high_BT: Tensor,
    scale: float, bias: float, o_BHTC: Tensor, lse_BHT: Tensor, grad_BHTC: Tensor, grad_lse_BHT: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and values."""
    from . import launch

    inputs = launch.RangeInputs(q_BHTC, k_BHMC, v_BHMC, place_BM, low_BT, high_BT, scale, bias)
    grad_q, [grad_k], [grad_v] = launch.range_backward([inputs], o_BHTC, lse_BHT, grad_BHTC, grad_lse_BHT)
    return grad_q, grad_k, grad_v


@range_attention_op.register_fake
def _(q_BHTC: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q_BHTC), q_BHTC.new_empty(q_BHTC.shape[:3], dtype=torch.float32)


@range_attention_backward_op.register_fake
def _(q_BHTC: Tensor, k_BHMC: Tensor, v_BHMC: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q_BHTC), torch.empty_like(k_BHMC), torch.empty_like(v_BHMC)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6], *output)
    ctx.numbers = inputs[6:]


def _backward(ctx: Any, grad_BHTC: Tensor, grad_lse_BHT: Tensor) -> tuple[Tensor | None, ...]:
    *operands, o_BHTC, lse_BHT = ctx.saved_tensors
    grads = range_attention_backward_op(
        *operands, *ctx.numbers, o_BHTC, lse_BHT, grad_BHTC.contiguous(), grad_lse_BHT.contiguous()
    )
    return *grads, None, None, None, None, None


range_attention_op.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("kanctl::ranges_attention", mutates_args=())
def ranges_attention_op(
    q_BHTC: Tensor, ks_BHMC: Sequence[Tensor], vs_BHMC: Sequence[Tensor], places_BM: Sequence[Tensor],
    lows_BT: Sequence[Tensor], highs_BT: Sequence[Tensor], scale: float, biases: Sequence[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What each query takes from the keys of all passes that it sees, and the log of the softmax's sum over them."""
    from . import launch

    return launch.range_forward(_passes(q_BHTC, ks_BHMC, vs_BHMC, places_BM, lows_BT, highs_BT, scale, biases))


@torch.library.custom_op("kanctl::ranges_attention_backward", mutates_args=())
def ranges_attention_backward_op(
    q_BHTC: Tensor, ks_BHMC: Sequence[Tensor], vs_BHMC: Sequence[Tensor], places_BM: Sequence[Tensor],
    lows_BT: Sequence[Tensor], highs_BT: Sequence[Tensor], scale: float, biases: Sequence[float],
    o_BHTC: Tensor, lse_BHT: Tensor, grad_BHTC: Tensor,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """Gradients of queries, and of each pass's keys and values."""
    from . import launch

    passes = _passes(q_BHTC, ks_BHMC, vs_BHMC, places_BM, lows_BT, highs_BT, scale, biases)
    return launch.range_backward(passes, o_BHTC, lse_BHT, grad_BHTC, None)


def _passes(
    q_BHTC: Tensor, ks_BHMC: Sequence[Tensor], vs_BHMC: Sequence[Tensor], places_BM: Sequence[Tensor],
    lows_BT: Sequence[Tensor], highs_BT: Sequence[Tensor], scale: float, biases: Sequence[float],
) -> "list[RangeInputs]":  # fmt: skip
    from . import launch

    each = zip(ks_BHMC, vs_BHMC, places_BM, lows_BT, highs_BT, biases, strict=True)
    return [launch.RangeInputs(q_BHTC, k, v, place, low, high, scale, bias) for k, v, place, low, high, bias in each]


@ranges_attention_op.register_fake
def _(q_BHTC: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q_BHTC), q_BHTC.new_empty(q_BHTC.shape[:3], dtype=torch.float32)


@ranges_attention_backward_op.register_fake
def _(
    q_BHTC: Tensor, ks_BHMC: Sequence[Tensor], vs_BHMC: Sequence[Tensor], *_: Any
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    return torch.empty_like(q_BHTC), [torch.empty_like(x) for x in ks_BHMC], [torch.empty_like(x) for x in vs_BHMC]


def _save_all(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q_BHTC, *lists, ctx.scale, ctx.biases = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.passes = len(ctx.biases)
    ctx.save_for_backward(q_BHTC, *(tensor for each in lists for tensor in each), *output)


def _backward_all(ctx: Any, grad_BHTC: Tensor, _: Any) -> tuple[Any, ...]:
    q_BHTC, *tensors, o_BHTC, lse_BHT = ctx.saved_tensors
    lists = [tensors[first : first + ctx.passes] for first in range(0, len(tensors), ctx.passes)]
    grad_q, grads_k, grads_v = ranges_attention_backward_op(
        q_BHTC, *lists, ctx.scale, ctx.biases, o_BHTC, lse_BHT, grad_BHTC.contiguous()
    )
    none = [None] * ctx.passes
    return grad_q, grads_k, grads_v, none, none, none, None, None


ranges_attention_op.register_autograd(_backward_all, setup_context=_save_all)
