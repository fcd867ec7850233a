"""KalmaGrove's choice in plain PyTorch, forward and backward: what runs on a CPU, and on any device in float64.

Letters: N tokens, E experts, r selector rank, S = E r + E views of a token (selectors', then gates'), k chosen each.
"""

import torch
from torch import Tensor

# Keeps shares finite for a token that no selector sees at all.
LEAST_SCORE = 1e-9


def plain_choose(
    seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, shift_E: Tensor, active: int
) -> tuple[Tensor, Tensor]:
    """Weights (N, k) and experts (N, k), int64 in ascending order."""
    score_NE, _, _ = _scores(seen_NS, scale_E)
    expert_Nk = (score_NE + shift_E).topk(active, dim=1).indices.sort(dim=1).values
    score_Nk, gate_Nk, total_N1 = _chosen(seen_NS, score_NE, bias_E, expert_Nk)
    return gate_Nk * score_Nk / total_N1, expert_Nk


def plain_choose_gradient(
    grad_Nk: Tensor, seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, expert_Nk: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the views (N, S), the scales (E,) and the biases (E,)."""
    score_NE, size_NE, view_NEr = _scores(seen_NS, scale_E)
    score_Nk, gate_Nk, total_N1 = _chosen(seen_NS, score_NE, bias_E, expert_Nk)
    of_logit_Nk = grad_Nk * score_Nk / total_N1 * gate_Nk * (1 - gate_Nk)
    of_share_Nk = grad_Nk * gate_Nk
    mean_N1 = (of_share_Nk * score_Nk).sum(1, keepdim=True) / total_N1
    is_enough_N1 = score_Nk.sum(1, keepdim=True) >= LEAST_SCORE
    of_score_Nk = (of_share_Nk - mean_N1.where(is_enough_N1, 0)) / total_N1
    of_score_NE, of_logit_NE = (
        torch.zeros_like(score_NE).scatter(1, expert_Nk, of) for of in (of_score_Nk, of_logit_Nk)
    )
    # A size of 0 has no direction.
    of_size_NE = (of_score_NE / scale_E / size_NE).masked_fill(size_NE == 0, 0)
    of_seen_NS = torch.cat([(of_size_NE[..., None] * view_NEr).flatten(1), of_logit_NE], 1)
    return of_seen_NS, -(of_score_NE * score_NE).sum(0) / scale_E, of_logit_NE.sum(0)


def _scores(seen_NS: Tensor, scale_E: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and sizes (N, E), and the selectors' views (N, E, r)."""
    experts = len(scale_E)
    view_NEr = seen_NS[:, :-experts].view(len(seen_NS), experts, seen_NS.shape[1] // experts - 1)
    size_NE = torch.linalg.vector_norm(view_NEr, dim=2)
    return size_NE / scale_E, size_NE, view_NEr


def _chosen(seen_NS: Tensor, score_NE: Tensor, bias_E: Tensor, expert_Nk: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and gates (N, k) of the chosen experts, and the sum of the scores (N, 1)."""
    score_Nk = score_NE.gather(1, expert_Nk)
    logit_NE = seen_NS[:, -score_NE.shape[1] :] + bias_E
    gate_Nk = torch.sigmoid(logit_NE.gather(1, expert_Nk))
    return score_Nk, gate_Nk, score_Nk.sum(1, keepdim=True).clamp(min=LEAST_SCORE)
