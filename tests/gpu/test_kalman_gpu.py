"""The Kalman filter's kernels on a GPU against the recursion in float64: values, every gradient, the same bits."""

import pytest
import torch

from kanctl.trainer.ops.kalman import kalman_filter
from kanctl.trainer.ops.kalman.reference import kalman_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.mark.parametrize("channels", [1, 33, 192])
@pytest.mark.parametrize("lengths", [[1], [7], [256], [5, 1, 300, 32]], ids=str)
def test_values_and_gradients_are_near_float64_and_the_same_twice(lengths: list[int], channels: int) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    position = torch.cat([torch.arange(length) for length in lengths]).expand(3, -1)
    observed = torch.randn(3, sum(lengths), channels, generator=generator)
    noise = (3 * torch.randn(3, sum(lengths), channels, generator=generator)).exp()
    drift, grad = torch.rand(channels, generator=generator), torch.randn(observed.shape, generator=generator)
    wide = [x.double().requires_grad_() for x in (observed, noise, drift)]
    wanted = kalman_reference(*wide, position)
    exact = torch.autograd.grad(wanted, wide, grad.double())
    runs = []
    for _ in range(2):
        leaves = [x.cuda().requires_grad_() for x in (observed, noise, drift)]
        estimate, _ = kalman_filter(*leaves, position.cuda())
        runs.append((estimate.detach(), *torch.autograd.grad(estimate, leaves, grad.cuda())))
    for value, again, of_reference in zip(*runs, (wanted.detach(), *exact), strict=True):
        assert torch.equal(value, again)
        error = (value.cpu().double() - of_reference).norm() / of_reference.norm().clamp(min=1e-30)
        assert error < 1e-4
