"""Launches of KalmaGrove's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: N tokens, E experts, r selector rank, S = E r + E views of a token, k chosen each, M = N k rows, C channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from .kernel_triton import (
    add_up_kernel,
    choose_gradient_kernel,
    choose_kernel,
    share_gradient_kernel,
    spread_kernel,
)

# Chosen by thought: rows of about a thousand channels, each thread with eight values of a row.
TILES: Mapping[str, int] = {"ROWS": 4, "COLUMNS": 512, "num_warps": 8}
# A program holds the views of its tokens at once: so many numbers in all, over the threads of four warps.
VIEWS = 4096


def choose(
    seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, shift_E: Tensor, active: int, least: float
) -> tuple[Tensor, Tensor]:
    """Weights (N, k) in float32 and experts (N, k), int64; seen and scale are in float32."""
    expert_Nk = seen_NS.new_empty((len(seen_NS), active), dtype=torch.int64)
    weight_Nk = seen_NS.new_empty((len(seen_NS), active))
    if len(seen_NS):
        experts, rank, tiles = _choice_sizes(seen_NS, scale_E, active)
        tensors = (seen_NS, scale_E, bias_E, shift_E, expert_Nk, weight_Nk)
        blocks = (cdiv(len(seen_NS), tiles["ROWS"]),)
        choose_kernel[blocks](*tensors, len(seen_NS), experts, rank, least, **tiles)
    return weight_Nk, expert_Nk


def choose_gradient(
    grad_Nk: Tensor, seen_NS: Tensor, scale_E: Tensor, bias_E: Tensor, expert_Nk: Tensor, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the views (N, S), the scales (E,) and the biases (E,), in float32."""
    experts, rank, tiles = _choice_sizes(seen_NS, scale_E, expert_Nk.shape[1])
    blocks = cdiv(len(seen_NS), tiles["ROWS"])
    out_NS = torch.empty_like(seen_NS)
    scale_out, bias_out = seen_NS.new_empty((blocks, experts)), seen_NS.new_empty((blocks, experts))
    if blocks:
        tensors = (seen_NS, scale_E, bias_E, expert_Nk, grad_Nk, out_NS, scale_out, bias_out)
        choose_gradient_kernel[(blocks,)](*tensors, len(seen_NS), experts, rank, least, **tiles)
    return out_NS, scale_out.sum(0), bias_out.sum(0)


def _choice_sizes(seen_NS: Tensor, scale_E: Tensor, active: int) -> tuple[int, int, dict[str, int]]:
    experts = len(scale_E)
    rank = seen_NS.shape[1] // experts - 1
    views = next_power_of_2(experts), next_power_of_2(rank)
    rows = max(1, VIEWS // (views[0] * views[1]))
    return experts, rank, {"ACTIVE": active, "ROWS": rows, "EXPERTS": views[0], "RANK": views[1], "num_warps": 4}


def spread(x_NC: Tensor, place_Nk: Tensor, weight_Nk: Tensor | None) -> Tensor:
    """Rows (M, C): row place[n, j] is x[n], times weight[n, j] where there is one."""
    active = place_Nk.shape[1]
    out_MC = x_NC.new_empty((len(x_NC) * active, x_NC.shape[1]))
    _over_rows(spread_kernel, x_NC, place_Nk, weight_Nk, out_MC)
    return out_MC


def add_up(rows_MC: Tensor, place_Nk: Tensor, weight_Nk: Tensor | None) -> Tensor:
    """Tokens (N, C): sums over j of row place[n, j], times weight[n, j] where there is one."""
    out_NC = rows_MC.new_empty((len(place_Nk), rows_MC.shape[1]))
    _over_rows(add_up_kernel, rows_MC, place_Nk, weight_Nk, out_NC)
    return out_NC


def share_gradient(rows_MC: Tensor, place_Nk: Tensor, grad_NC: Tensor, like_Nk: Tensor) -> Tensor:
    """(N, k) in the dtype of like_Nk: grad[n] . row place[n, j]."""
    tokens, active = place_Nk.shape
    out_Nk = like_Nk.new_empty((tokens, active))
    if out_Nk.numel():
        share_gradient_kernel[(cdiv(tokens, TILES["ROWS"]),)](
            rows_MC, place_Nk, grad_NC, out_Nk, tokens, rows_MC.shape[1], ACTIVE=active, **TILES
        )
    return out_Nk


def _over_rows(kernel: Any, from_: Tensor, place_Nk: Tensor, weight_Nk: Tensor | None, out: Tensor) -> None:
    tokens, active = place_Nk.shape
    if not out.numel():
        return
    channels = out.shape[1]
    blocks = (cdiv(tokens, TILES["ROWS"]), cdiv(channels, TILES["COLUMNS"]))
    weight = from_ if weight_Nk is None else weight_Nk
    named = {"ACTIVE": active, "WEIGHTED": weight_Nk is not None, **TILES}
    kernel[blocks](from_, place_Nk, weight, out, tokens, channels, **named)


def compilations() -> list[tuple[Any, dict[str, int | str]]]:
    """Each kernel with the constants and options that a launch with two choices gives it."""
    rows = {"ACTIVE": 2, **TILES}
    views = {"ACTIVE": 2, "ROWS": 32, "EXPERTS": 16, "RANK": 8, "num_warps": 4}
    return [
        (spread_kernel, {**rows, "WEIGHTED": True}),
        (add_up_kernel, {**rows, "WEIGHTED": True}),
        (share_gradient_kernel, {**rows}),
        (choose_kernel, {**views}),
        (choose_gradient_kernel, {**views}),
    ]
