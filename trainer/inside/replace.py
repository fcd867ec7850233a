"""What a model's loss becomes when formulas stand in for edges. The model's weights stay as they are."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.edge import NORM_EPSILON
from .edges import EdgeCurve, edge_layers

# An edge, and what its curve is replaced by.
Replacement = tuple[EdgeCurve, Callable[[Tensor], Tensor]]


@contextmanager
def replaced(model: nn.Module, replacements: Sequence[Replacement]) -> Iterator[None]:
    """Meanwhile each edge adds what its replacement gives, instead of its curve."""
    by_layer: dict[str, list[Replacement]] = defaultdict(list)
    for replacement in replacements:
        by_layer[replacement[0].edge.layer].append(replacement)
    layers = edge_layers(model)
    hooks = [layers[name].register_forward_hook(_hook(those)) for name, those in by_layer.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hook(replacements: Sequence[Replacement]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def change(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        wide = torch.promote_types(out.dtype, torch.float32)
        x_NI = F.rms_norm(args[0].flatten(0, -2).to(wide), args[0].shape[-1:], eps=NORM_EPSILON)
        changed_NO = out.flatten(0, -2).to(wide, copy=True)
        for curve, function in replacements:
            x_N = x_NI[:, curve.edge.input].cpu()
            difference_N = (function(x_N) - curve.value(x_N)).to(changed_NO.device)
            changed_NO[:, curve.edge.output] += difference_N
        return changed_NO.to(out.dtype).view_as(out)

    return change
