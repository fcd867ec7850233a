"""What the edge layer is measured against, in plain PyTorch: other ways to the same kind of layer, at equal parameters.

Each takes inputs (N, I) and a weight (J, I, O) and gives (N, O) by autograd's own means, so that it can be compiled.
`gemm` is no such layer: it is given the features, and shows what the vendor's matrix product alone needs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.bspline import SplineGrid
from ..ops.bspline.reference import dense_bases

Layer = Callable[[Tensor, Tensor, SplineGrid], Tensor]


def closed_form(x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid) -> Tensor:
    """The same splines by their closed form, and one product."""
    features_NIJ = torch.cat([dense_bases(x_NI, grid), F.silu(x_NI.float())[..., None]], -1).to(x_NI.dtype)
    return features_NIJ.transpose(1, 2).flatten(1) @ weight_JIO.flatten(0, 1)


def cox_de_boor(x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid) -> Tensor:
    """The same splines by the recursion on knots with every level in memory, as the first public layers did it."""
    step = 2 * grid.limit / grid.cells
    knots = torch.arange(-3, grid.cells + 4, device=x_NI.device, dtype=torch.float32) * step - grid.limit
    x = x_NI.float()[..., None]
    bases = ((x >= knots[:-1]) & (x < knots[1:])).float()
    for degree in (1, 2, 3):
        left = (x - knots[: -degree - 1]) / (degree * step) * bases[..., :-1]
        right = (knots[degree + 1 :] - x) / (degree * step) * bases[..., 1:]
        bases = left + right
    # Beyond the grid the recursion goes on to the outer knots; our splines end there.
    bases = bases * (x.abs() <= grid.limit)
    spline_NO = bases.to(x_NI.dtype).flatten(1) @ weight_JIO[:-1].transpose(0, 1).flatten(0, 1)
    return spline_NO + F.silu(x_NI) @ weight_JIO[-1]


def gaussian(x_NI: Tensor, weight_JIO: Tensor, grid: SplineGrid) -> Tensor:
    """Gaussian bases in place of splines: another function, of as many parameters."""
    centres_K = torch.linspace(-grid.limit, grid.limit, grid.bases, device=x_NI.device, dtype=x_NI.dtype)
    width = 2 * grid.limit / (grid.bases - 1)
    bases_NIK = torch.exp(-(((x_NI[..., None] - centres_K) / width) ** 2))
    spline_NO = bases_NIK.flatten(1) @ weight_JIO[:-1].transpose(0, 1).flatten(0, 1)
    return spline_NO + F.silu(x_NI) @ weight_JIO[-1]


RIVALS: dict[str, Layer] = {"closed form": closed_form, "Cox-de Boor": cox_de_boor, "Gaussian": gaussian}
# Those that compute our function, and so must pass our check.
SAME_FUNCTION = frozenset({"closed form", "Cox-de Boor"})
