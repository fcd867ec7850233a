"""Second moments of layers' inputs, seen by hooks while a model trains: what a Kalman filter of whole weights needs.

Letters: N rows, I inputs, J features of an input, O outputs; S blocks of C inputs that are taken as correlated.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.edge import NORM_EPSILON, EdgeLayer
from ..ops.bspline.features import features

# A moment needs no more rows than this, and an edge layer's features are J times as large as its inputs.
MOST_ROWS = 4096
# Linear layers with more inputs are taken in equal blocks of at most so many.
MOST_INPUTS = 1024


class InputSide(Protocol):
    """The input side of one weight."""

    def moment(self, x_NI: Tensor) -> Tensor:
        """Mean outer products of the rows' features, (S, C, C), in float32."""
        ...

    def multiply(self, precision_SCC: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the weight, multiplied on its input side; in the weight's shape."""
        ...


class LinearInputs:
    """Of a weight (O, I): one block, or several where I is large."""

    def moment(self, x_NI: Tensor) -> Tensor:
        """(S, C, C)."""
        blocks = block_count(x_NI.shape[-1])
        x_NSC = x_NI.float().view(len(x_NI), blocks, -1)
        return torch.einsum("nsc,nsd->scd", x_NSC, x_NSC) / len(x_NI)

    def multiply(self, precision_SCC: Tensor, grad: Tensor) -> Tensor:
        """(O, I)."""
        grad_OSC = grad.reshape(len(grad), *precision_SCC.shape[:2])
        return torch.einsum("osc,scd->osd", grad_OSC, precision_SCC).flatten(1)


class EdgeInputs:
    """Of an edge layer's weight (J, I, O): a block of J features for each input, S = I and C = J."""

    def __init__(self, layer: EdgeLayer) -> None:
        self._grid, self._form = layer.grid, layer.form

    def moment(self, x_NI: Tensor) -> Tensor:
        """(I, J, J)."""
        normed_NI = F.rms_norm(x_NI.float(), x_NI.shape[-1:], eps=NORM_EPSILON)
        features_NJI = features(normed_NI, self._grid, self._form)
        return torch.einsum("nji,nki->ijk", features_NJI, features_NJI) / len(x_NI)

    def multiply(self, precision_SCC: Tensor, grad: Tensor) -> Tensor:
        """(J, I, O)."""
        return torch.einsum("ijk,kio->jio", precision_SCC, grad)


class InputMoments:
    """Watches every linear and edge layer of a model; while `is_collecting`, training leaves moments here by weight.

    A moment's tensor stays the same from the first on, so that CUDA graphs can write to it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.is_collecting = False
        self.sides: dict[str, InputSide] = {}
        self._seen: dict[str, Tensor] = {}
        for place, module in model.named_modules():
            if isinstance(module, nn.Linear):
                self._watch(module, f"{place}.weight", LinearInputs())
            elif isinstance(module, EdgeLayer):
                self._watch(module, f"{place}.weight_JIO", EdgeInputs(module))

    def newest(self, name: str) -> Tensor | None:
        """The newest moment for a weight, (S, C, C); None where its layer has not run yet."""
        return self._seen.get(name)

    def _watch(self, module: nn.Module, name: str, side: InputSide) -> None:
        self.sides[name] = side
        module.register_forward_pre_hook(self._hook(name, side))

    def _hook(self, name: str, side: InputSide) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # Without gradients it is an evaluation, or the first of a reversible block's two passes.
            if not (self.is_collecting and module.training and torch.is_grad_enabled()):
                return
            with torch.no_grad():
                x_NI = inputs[0].detach().flatten(0, -2)
                stride = max(1, -(-len(x_NI) // MOST_ROWS))
                moment_SCC = side.moment(x_NI[::stride])
                self._seen.setdefault(name, moment_SCC).copy_(moment_SCC)

        return see


def block_count(inputs: int) -> int:
    """The fewest equal blocks of at most MOST_INPUTS."""
    least = -(-inputs // MOST_INPUTS)
    return next(count for count in range(least, inputs + 1) if inputs % count == 0)
