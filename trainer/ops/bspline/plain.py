"""The edge layer's three products in plain PyTorch: what runs on a CPU, and on any device in float64."""

from torch import Tensor

from . import slab
from .features import EdgeForm, features, input_gradient
from .grid import SplineGrid

# A CPU gains from slabs that stay near its caches, and loses by products that are cut too small.
SLAB_BYTES = 64 << 20


def plain_forward(x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid, form: EdgeForm) -> Tensor:
    """The layer's outputs (N, O)."""
    return slab.forward(x_NI, weight_JIO, lambda x_NI: features(x_NI, grid, form), SLAB_BYTES)


def plain_input_gradient(x_NI: Tensor, weight_JIO: Tensor, grad_NO: Tensor, grid: SplineGrid, form: EdgeForm) -> Tensor:
    """The gradient of the inputs (N, I)."""

    def contract(x_NI: Tensor, grad_NJI: Tensor, out_NI: Tensor) -> None:
        out_NI.copy_(input_gradient(x_NI, grad_NJI, grid, form))

    return slab.input_gradient(x_NI, weight_JIO, grad_NO, contract, SLAB_BYTES)


def plain_weight_gradient(x_NI: Tensor, grad_NO: Tensor, grid: SplineGrid, form: EdgeForm) -> Tensor:
    """The gradient of the weight (J, I, O)."""
    expand = lambda x_NI: features(x_NI, grid, form)  # noqa: E731
    return slab.weight_gradient(x_NI, grad_NO, grid.bases + 1, expand, SLAB_BYTES)
