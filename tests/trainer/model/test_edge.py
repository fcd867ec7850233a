"""Edge layers: start values that keep the variance, and inputs that meet the grid."""

import torch

from kanctl.trainer.model.edge import EdgeLayer
from kanctl.trainer.ops.bspline import SplineGrid


def edge_layer(inputs: int, outputs: int, scale: float = 1.0) -> EdgeLayer:
    layer = EdgeLayer(inputs, outputs, SplineGrid(), "dense")
    layer.start(torch.Generator().manual_seed(1), scale)
    return layer


def test_start_values_have_the_spreads_of_the_definition() -> None:
    weight_JIO = edge_layer(64, 128).weight_JIO.detach()
    torch.testing.assert_close(weight_JIO[-1].std().item(), (0.8 / (0.353 * 64)) ** 0.5, rtol=0.03, atol=0)
    torch.testing.assert_close(weight_JIO[:-1].std().item(), (0.2 / (0.479 * 64)) ** 0.5, rtol=0.01, atol=0)


def test_the_constants_of_the_start_are_the_moments_of_a_normal_input() -> None:
    x = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    from kanctl.trainer.model.edge import BASES_POWER, SILU_POWER
    from kanctl.trainer.ops.bspline.reference import dense_bases

    assert abs(torch.nn.functional.silu(x).square().mean().item() - SILU_POWER) < 0.01
    assert abs(dense_bases(x, SplineGrid()).square().sum(-1).mean().item() - BASES_POWER) < 0.01


def test_an_edge_layer_keeps_the_variance_times_its_scale() -> None:
    x = 7 * torch.randn(512, 96, generator=torch.Generator().manual_seed(3))
    for scale in (1.0, 0.5):
        spread = edge_layer(96, 96, scale)(x).std().item()
        assert abs(spread / scale - 1) < 0.1


def test_the_input_is_normalised_so_that_its_scale_does_not_matter() -> None:
    layer = edge_layer(32, 8)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(layer(1000 * x), layer(x), rtol=1e-4, atol=1e-5)
