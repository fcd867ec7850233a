"""Experts' load and diffusion kernels: what a model's groves and diffusion attentions have learned to do.

Letters: H heads, C channels of a head, W taps, E experts, N rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..model.ada import FIRST_TAP_LOGIT, ArnoldDiffusionAttention
from ..model.grove import Grove
from .edges import numbers, rounded

LOW, HIGH = 0.1, 0.9


def diffusion_kernels(model: nn.Module) -> list[dict[str, object]]:
    """Of each diffusion attention: every head's taps, the current token's first, and the kernel that it started from.

    `mean` is over a head's channels; `low` and `high` are the tenth and the ninetieth hundredth of them.
    """
    found: list[dict[str, object]] = []
    for name, module in model.named_modules():
        if isinstance(module, ArnoldDiffusionAttention):
            taps_HCW = torch.softmax(module.tap_logits_HCW.detach().float().cpu(), -1)
            heads = [
                {
                    "mean": numbers(taps_CW.mean(0)),
                    "low": numbers(taps_CW.quantile(LOW, 0)),
                    "high": numbers(taps_CW.quantile(HIGH, 0)),
                }
                for taps_CW in taps_HCW
            ]
            start_W = torch.zeros(taps_HCW.shape[-1])
            start_W[0] = FIRST_TAP_LOGIT
            found.append({"layer": name, "heads": heads, "start": numbers(torch.softmax(start_W, 0))})
    return found


def expert_load(model: nn.Module, run: Callable[[], object]) -> list[dict[str, object]]:
    """Of each grove: the share of all choices that falls on each expert, and the share if all were equal.

    Args:
        run: passes real text through the model.
    """
    groves = {name: module for name, module in model.named_modules() if isinstance(module, Grove)}
    loads = {name: torch.zeros(grove.experts, dtype=torch.int64) for name, grove in groves.items()}
    hooks = [grove.register_forward_pre_hook(_counter(loads[name])) for name, grove in groves.items()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [
        {"layer": name, "shares": numbers(load_E / load_E.sum()), "even_share": rounded(1 / len(load_E))}
        for name, load_E in loads.items()
    ]


def _counter(load_E: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def count(grove: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(grove, Grove)
        with torch.no_grad():
            choice = grove.choice(args[0].flatten(0, -2))
        load_E.add_(torch.bincount(choice.expert_Nk.flatten().cpu(), minlength=len(load_E)))

    return count
