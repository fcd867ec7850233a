"""KalmaGrove's dispatch: each token chooses k of E subnets by selector, and their gated outputs are added. README.md.

Dropless: every token reaches every subnet that it chose. Deterministic: no sum's order depends on timing.
Letters: N tokens, E experts (subnets), r selector rank, k chosen per token, I inputs, O outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Choice", "choose", "dispatch", "selector_scores"]

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


def dispatch(x_NI: Tensor, choice: Choice, experts: int, run: Callable[[int, Tensor], Tensor]) -> Tensor:
    """sum over the chosen e of weight_e * run(e, x), (N, O) in x's dtype.

    Args:
        run: an expert's outputs (M, O) of the rows (M, I) that chose it; called once for each, with M = 0 too, so that
            every weight has a gradient.

    Waits once for the device, which counts the rows of each expert. Peak memory is k copies of x and of the output.
    """
    tokens, active = choice.expert_Nk.shape
    order_M = choice.expert_Nk.flatten().sort(stable=True).indices
    counts = torch.bincount(choice.expert_Nk.flatten(), minlength=experts).tolist()
    # Each row is taken once from k copies: the gradient is a permutation and a sum of k, never a scattered add.
    copies_MI = x_NI[:, None].expand(-1, active, -1).reshape(tokens * active, x_NI.shape[1])
    parts = torch.split(copies_MI[order_M], counts)
    out_MO = torch.cat([run(expert, part) for expert, part in enumerate(parts)])
    place_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=x_NI.device))
    out_NkO = out_MO[place_M].view(tokens, active, out_MO.shape[1])
    return (out_NkO * choice.weight_Nk[..., None].to(out_MO.dtype)).sum(1)
