"""KalmaGrove's dispatch: each token chooses k of E subnets by selector, and their gated outputs are added. README.md.

Dropless: every token reaches every subnet that it chose. Deterministic: no sum's order depends on timing.
Letters: N tokens, E experts (subnets), r selector rank, k chosen per token, I inputs, O outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..route import Route, dtype_name, machine_of
from .library import add_up_op, choose_op, spread_op
from .route import route_grouped_linear

__all__ = ["Choice", "choose", "dispatch", "group", "grouped_linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What each token chose: experts in ascending order, so that sums have one order."""

    expert_Nk: Tensor
    """int64, each 0 to E - 1, all different in a row."""
    weight_Nk: Tensor
    """Gate times share of the scores; differentiable."""


def choose(
    x_NI: Tensor, selector_ErI: Tensor, gate_EI: Tensor, gate_bias_E: Tensor, offset_E: Tensor, active: int
) -> Choice:
    """The k experts with the largest score plus offset, and what their outputs are multiplied by, in float32 at least.

    s_e(x) = ||A_e x|| / ||A_e||_F; the weight is sigmoid(w_e . x + g_e) s_e / (sum of the chosen s).

    Args:
        selector_ErI: A. gate_EI, gate_bias_E: w and g. offset_E: b, which counts for the choice alone.
        active: k, 1 <= k <= E.
    """
    if not 1 <= active <= len(selector_ErI):
        raise ValueError(f"wanted 1 to {len(selector_ErI)} active experts, found {active}")
    wide = torch.promote_types(x_NI.dtype, torch.float32)
    scale_E = torch.linalg.vector_norm(selector_ErI.to(wide), dim=(1, 2))
    seen_NS = wide_product(x_NI, torch.cat([selector_ErI.flatten(0, 1), gate_EI]))
    weight_Nk, expert_Nk = choose_op(seen_NS, scale_E, gate_bias_E.to(wide), offset_E.to(wide), active)
    return Choice(expert_Nk=expert_Nk, weight_Nk=weight_Nk)


def wide_product(x_NI: Tensor, weight_SI: Tensor) -> Tensor:
    """x @ weight.T in float32 at least: narrow sums turn one choice in two hundred, for scores lie close together."""
    wide = torch.promote_types(x_NI.dtype, torch.float32)
    if x_NI.is_cuda and x_NI.dtype == weight_SI.dtype != wide:
        return _WideProduct.apply(x_NI, weight_SI)  # type: ignore[no-any-return,no-untyped-call]
    return x_NI.to(wide) @ weight_SI.to(wide).T


class _WideProduct(torch.autograd.Function):
    """A product of narrow numbers that tensor cores add up in float32, given back as that. Its gradients are narrow."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_SI: Tensor) -> Tensor:
        ctx.save_for_backward(x_NI, weight_SI)
        return torch.mm(x_NI, weight_SI.T, out_dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad_NS: Tensor) -> tuple[Tensor, Tensor]:
        x_NI, weight_SI = ctx.saved_tensors
        narrow_NS = grad_NS.to(x_NI.dtype)
        return narrow_NS @ weight_SI, narrow_NS.T @ x_NI


def dispatch(x_NI: Tensor, choice: Choice, experts: int, run: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """sum over the chosen e of weight_e * subnet_e(x), (N, O) in x's dtype.

    Args:
        run: outputs (M, O) of rows (M, I) in the order of their experts, and of where the rows of each end: int32 (E,)
            on x's device, the last one M. It is called once, with rows of no expert too.

    Asks nothing of the host but what `run` asks. Peak memory is k copies of x and of the output.
    """
    place_Nk, ends_E = group(choice.expert_Nk, experts)
    rows_MI = spread_op(x_NI.contiguous(), place_Nk)
    out_NO: Tensor = add_up_op(run(rows_MI, ends_E).contiguous(), place_Nk, choice.weight_Nk)
    return out_NO


def group(expert_Nk: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Where each choice's row is once rows are in the order of their experts (stable), and where those of each end.

    Args:
        expert_Nk: a token's choices in ascending order.

    Returns:
        (N, k) int64, each of 0 to N k - 1 once; (E,) int32.
    """
    if len(expert_Nk) == 1:
        # Already in order.
        place_M = torch.arange(expert_Nk.shape[1], device=expert_Nk.device)
        each_E = torch.arange(experts, device=expert_Nk.device)
        return place_M[None], torch.searchsorted(expert_Nk[0], each_E, right=True, out_int32=True)
    # Narrow numbers are sorted in fewer passes.
    narrow = expert_Nk.flatten().to(torch.uint8 if experts <= 256 else torch.int32)
    sorted_M, order_M = narrow.sort(stable=True)
    place_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=order_M.device))
    each_E = torch.arange(experts, device=order_M.device, dtype=sorted_M.dtype)
    return place_M.view_as(expert_Nk), torch.searchsorted(sorted_M, each_E, right=True, out_int32=True)


def grouped_linear(x_MI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """x @ weight of each row's expert, (M, O): by whichever way route.py says.

    Args:
        ends_E: where the rows of each expert end, as dispatch gives them.
    """
    route = route_of_grouped_linear(x_MI, weight_EIO).implementation
    if route == "grouped":
        return F.grouped_mm(x_MI, weight_EIO, offs=ends_E)
    if route == "copied":
        rows_M = torch.arange(len(x_MI), device=x_MI.device, dtype=torch.int32)
        expert_M = torch.searchsorted(ends_E, rows_M, right=True)
        return (x_MI[:, None] @ weight_EIO[expert_M])[:, 0]
    ends = ends_E.tolist()
    parts = torch.split(x_MI, [last - first for first, last in zip([0, *ends], ends, strict=False)])
    return torch.cat([part @ weight_IO for part, weight_IO in zip(parts, weight_EIO.unbind(), strict=True)])


def route_of_grouped_linear(x_MI: Tensor, weight_EIO: Tensor) -> Route:
    """Which way grouped_linear goes, and why."""
    machine, (inputs, outputs) = machine_of(x_MI.device), weight_EIO.shape[1:]
    return route_grouped_linear(machine, inputs=inputs, outputs=outputs, dtype=dtype_name(x_MI), rows=len(x_MI))
