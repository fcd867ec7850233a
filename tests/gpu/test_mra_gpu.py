"""Multi-resolution attention's kernels on a GPU against plain PyTorch in float64: values, gradients, the same bits."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.mra import Resolutions, multi_resolution_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
# Outputs of passes are rounded before they are put together.
BOUNDS = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
CASES = [
    Resolutions(window=32, levels=(16,)),
    Resolutions(window=100, levels=(7, 60)),
    Resolutions(window=32, levels=(16, 128), fuse="sum"),
]


def operands(rows: list[list[int]], resolutions: Resolutions, size: int, dtype: torch.dtype) -> list[Tensor]:
    position = torch.tensor([[place for length in row for place in range(length)] for row in rows], device="cuda")
    counts = [position.shape[1]] * 3 + [position.shape[1] // level for level in resolutions.levels for _ in range(2)]
    generator = torch.Generator("cuda").manual_seed(1)
    shapes = [(len(rows), 3, count, size) for count in counts]
    return [torch.randn(s, generator=generator, device="cuda").to(dtype) for s in shapes] + [position]


def run(given: list[Tensor], resolutions: Resolutions) -> list[Tensor]:
    *floats, position = given
    floats = [x.detach().requires_grad_() for x in floats]
    q, k, v, *rest = floats
    out = multi_resolution_attention(q, k, v, list(zip(rest[::2], rest[1::2], strict=True)), position, resolutions)
    generator = torch.Generator("cuda").manual_seed(2)
    # Exact in every dtype.
    grad = torch.randn(out.shape, generator=generator, device="cuda").bfloat16().to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, floats, grad)]


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("size", [24, 64, 128])
@pytest.mark.parametrize("resolutions", CASES, ids=lambda r: f"w{r.window}-{r.levels}-{r.fuse}")
@pytest.mark.parametrize("rows", [[[777]], [[300, 1, 211], [512]]], ids=str)
def test_values_and_gradients_are_near_float64_and_the_same_twice(
    rows: list[list[int]], resolutions: Resolutions, size: int, dtype: torch.dtype
) -> None:
    given = operands(rows, resolutions, size, dtype)
    found, again = run(given, resolutions), run(given, resolutions)
    wanted = run([x.double() if x.is_floating_point() else x for x in given], resolutions)
    for one, other, exact in zip(found, again, wanted, strict=True):
        assert torch.equal(one, other)
        assert float((one.double() - exact).norm() / exact.norm().clamp(min=1e-30)) < BOUNDS[dtype]


def test_a_long_row_needs_no_memory_for_scores() -> None:
    resolutions = Resolutions(window=128, levels=(128,))
    given = operands([[16384]], resolutions, 64, torch.bfloat16)
    run(given, resolutions)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(given, resolutions)
    # All scores of one head in float32 would be 25 MB, of plain PyTorch's several copies.
    assert torch.cuda.max_memory_allocated() - before < 40 * given[0].numel() * 2
