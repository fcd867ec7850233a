"""Diffusion attention's Triton kernels as operators of torch's library. Second derivatives are not there: an error."""

from typing import Any

import torch
from torch import Tensor


def chunk_of(v_BHTC: Tensor) -> int:
    """Tokens of a chunk: of large float32 heads more than 32 do not fit into shared memory."""
    return 32 if v_BHTC.dtype == torch.float32 and v_BHTC.shape[3] > 64 else 64


@torch.library.custom_op("kanctl::ada", mutates_args=())
def ada_op(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, taps_HCW: Tensor, log_decay_BHT: Tensor, position_BT: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs, what the backward pass wants again (launch.py), and the last state; of contiguous inputs."""
    from . import launch

    inputs = launch.AdaInputs(q_BHTC, k_BHTC, v_BHTC, taps_HCW, log_decay_BHT, position_BT)
    return launch.ada_forward(inputs)


@torch.library.custom_op("kanctl::ada_backward", mutates_args=())
def ada_backward_op(
    q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, taps_HCW: Tensor, log_decay_BHT: Tensor, position_BT: Tensor,
    before_BHNCC: Tensor, passed_BHT: Tensor, grad_BHTC: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, the taps and the log decays, in the dtypes of these."""
    from . import launch

    inputs = launch.AdaInputs(q_BHTC, k_BHTC, v_BHTC, taps_HCW, log_decay_BHT, position_BT)
    of_q, of_k, of_v, of_taps, of_decay = launch.ada_backward(inputs, before_BHNCC, passed_BHT, grad_BHTC)
    return of_q, of_k, of_v, of_taps.to(taps_HCW.dtype).contiguous(), of_decay.to(log_decay_BHT.dtype)


@ada_op.register_fake
def _(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, heads, tokens, size = q_BHTC.shape
    chunks = -(-tokens // chunk_of(v_BHTC))
    before = v_BHTC.new_empty((batch, heads, chunks, size, size))
    passed = v_BHTC.new_empty((batch, heads, tokens), dtype=torch.float32)
    last = v_BHTC.new_empty((batch, heads, size, size), dtype=torch.float32)
    return torch.empty_like(v_BHTC), before, passed, last


@ada_backward_op.register_fake
def _(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, taps_HCW: Tensor, log_decay_BHT: Tensor, *_: Tensor) -> Any:
    return tuple(torch.empty_like(x) for x in (q_BHTC, k_BHTC, v_BHTC, taps_HCW, log_decay_BHT))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, before_BHNCC, passed_BHT, last_BHCC = output
    ctx.mark_non_differentiable(before_BHNCC, passed_BHT, last_BHCC)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, before_BHNCC, passed_BHT)


def _backward(ctx: Any, grad_BHTC: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_BHTC is None:
        return (None,) * 6
    return *ada_backward_op(*ctx.saved_tensors, grad_BHTC.contiguous()), None


ada_op.register_autograd(_backward, setup_context=_save)
