"""Launches of the dispatch's Triton kernels: tensors in, fresh tensors out. Imported only where they run.

Letters: N tokens, k chosen per token, M = N k rows, C channels.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from triton import cdiv

from .kernel_triton import add_up_kernel, share_gradient_kernel, spread_kernel

# Chosen by thought: rows of about a thousand channels, each thread with eight values of a row.
TILES: Mapping[str, int] = {"ROWS": 4, "COLUMNS": 512, "num_warps": 8}


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
    kernels = [(spread_kernel, {"WEIGHTED": True}), (add_up_kernel, {"WEIGHTED": True}), (share_gradient_kernel, {})]
    return [(kernel, {"ACTIVE": 2, **TILES, **named}) for kernel, named in kernels]
