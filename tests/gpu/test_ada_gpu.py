"""Diffusion attention's kernels on a GPU against the direct form in float64: values, every gradient, the same bits."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.ada import ada, launch
from kanctl.trainer.ops.ada.reference import ada_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
# Of float32 the sums of decays, of bfloat16 the products' inputs.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("size", "taps"), [(64, 4), (24, 1), (128, 7)])
@pytest.mark.parametrize("lengths", [[1], [7], [64], [40, 1, 150], [257]], ids=str)
def test_values_and_gradients_are_near_float64_and_the_same_twice(
    lengths: list[int], size: int, taps: int, dtype: torch.dtype
) -> None:
    compare(lengths, size, taps, dtype)


# Of six pairs: whole rows, segments of several chunks. The second row needs no masks.
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("programs", [1, 24])
@pytest.mark.parametrize("lengths", [[700, 3, 200], [700, 3, 321]], ids=str)
def test_programs_that_walk_over_many_chunks_are_right(
    lengths: list[int], programs: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    compare(lengths, 64, 4, dtype)


def compare(lengths: list[int], size: int, taps: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens, heads = sum(lengths), 3

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    floats = [draw(2, heads, tokens, size).to(dtype) for _ in range(3)]
    floats += [draw(heads, size, taps).softmax(-1).to(dtype), -0.1 * draw(2, heads, tokens).square()]
    position = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    q, k, v, weights, decay = wide = [x.double().requires_grad_() for x in floats]
    wanted = ada_reference(q, k, v, weights, decay, position)
    grad = draw(*wanted.shape).to(dtype)
    exact = torch.autograd.grad(wanted, wide, grad.double())
    runs = []
    for _ in range(2):
        q, k, v, weights, decay = leaves = [x.cuda().requires_grad_() for x in floats]
        out, _ = ada(q, k, v, weights, decay, position.cuda())
        runs.append((out.detach(), *torch.autograd.grad(out, leaves, grad.cuda())))
    for value, again, of_reference in zip(*runs, (wanted.detach(), *exact), strict=True):
        assert torch.equal(value, again)
        error = (value.cpu().double() - of_reference).norm() / of_reference.norm().clamp(min=1e-6)
        assert error < BOUNDS[dtype]
