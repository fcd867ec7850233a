"""KalmaGrove's dispatch: each token chooses k of E subnets by selector, and their gated outputs are added. README.md.

Dropless: every token reaches every subnet that it chose. Deterministic: no sum's order depends on timing.
Letters: N tokens, E experts (subnets), r selector rank, k chosen per token, I inputs, O outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..route import Route, dtype_name, machine_of
from .library import add_up_op, spread_op
from .route import route_grouped_linear

__all__ = ["Choice", "choose", "dispatch", "group", "grouped_linear", "selector_scores"]

# Keeps shares finite for a token that no selector sees at all.
LEAST_SCORE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What each token chose: experts in ascending order, so that sums have one order."""

    expert_Nk: Tensor
    """int64, each 0 to E - 1, all different in a row."""
    weight_Nk: Tensor
    """Gate times share of the scores; differentiable."""


def selector_scores(x_NI: Tensor, selector_ErI: Tensor) -> Tensor:
    """s_e(x) = ||A_e x|| / ||A_e||_F, (N, E), in float32 at least."""
    wide = torch.promote_types(x_NI.dtype, torch.float32)
    # A narrow product would turn one choice in two hundred: scores of neighbours lie close together.
    selector_ErI = selector_ErI.to(wide)
    seen_NEr = (x_NI.to(wide) @ selector_ErI.flatten(0, 1).T).view(len(x_NI), *selector_ErI.shape[:2])
    scale_E = torch.linalg.vector_norm(selector_ErI, dim=(1, 2))
    score_NE: Tensor = torch.linalg.vector_norm(seen_NEr, dim=2) / scale_E
    return score_NE


def choose(score_NE: Tensor, gate_logit_NE: Tensor, offset_E: Tensor, active: int) -> Choice:
    """The k experts with the largest score plus offset, and what their outputs are multiplied by.

    Args:
        score_NE: s, at least 0. gate_logit_NE: w_e . x + g_e. offset_E: b, which counts for the choice alone.
        active: k, 1 <= k <= E.
    """
    if not 1 <= active <= score_NE.shape[1]:
        raise ValueError(f"wanted 1 to {score_NE.shape[1]} active experts, found {active}")
    expert_Nk = (score_NE.detach() + offset_E).topk(active, dim=1).indices.sort(dim=1).values
    score_Nk = score_NE.gather(1, expert_Nk)
    share_Nk = score_Nk / score_Nk.sum(1, keepdim=True).clamp(min=LEAST_SCORE)
    gate_Nk = torch.sigmoid(gate_logit_NE.gather(1, expert_Nk).to(score_NE.dtype))
    return Choice(expert_Nk=expert_Nk, weight_Nk=gate_Nk * share_Nk)


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

    Returns:
        (N, k) int64, each of 0 to N k - 1 once; (E,) int32.
    """
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
