"""Range attention's Triton kernels as operators of torch's library. Second derivatives are not there: an error.

Letters: B rows, H heads, T queries, M keys, C channels.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("kanctl::range_attention", mutates_args=())
def range_attention_op(
    q_BHTC: Tensor, k_BHMC: Tensor, v_BHMC: Tensor, place_BM: Tensor, low_BT: Tensor, high_BT: Tensor,
    scale: float, bias: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What each query takes from the keys with low <= place <= high, (B, H, T, C), and the log of the softmax's sum."""
    from . import launch

    return launch.range_forward(launch.RangeInputs(q_BHTC, k_BHMC, v_BHMC, place_BM, low_BT, high_BT, scale, bias))


@torch.library.custom_op("kanctl::range_attention_backward", mutates_args=())
def range_attention_backward_op(
    q_BHTC: Tensor, k_BHMC: Tensor, v_BHMC: Tensor, place_BM: Tensor, low_BT: Tensor, high_BT: Tensor,
    scale: float, bias: float, o_BHTC: Tensor, lse_BHT: Tensor, grad_BHTC: Tensor, grad_lse_BHT: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of queries, keys and values."""
    from . import launch

    inputs = launch.RangeInputs(q_BHTC, k_BHMC, v_BHMC, place_BM, low_BT, high_BT, scale, bias)
    return launch.range_backward(inputs, o_BHTC, lse_BHT, grad_BHTC, grad_lse_BHT)


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
