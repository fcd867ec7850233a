"""The edge layer's kernels on a GPU, each by itself, against float64: values, every gradient, the same bits twice."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.bspline import SplineGrid, edge_linear
from kanctl.trainer.ops.bspline.reference import edge_linear_reference

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

# They need Triton, which comes with PyTorch's builds for GPUs.
from kanctl.trainer.ops.bspline import hopper, launch, slab

pytestmark = [
    pytest.mark.gpu,
    # Of PyTorch: a thread of its own makes the first product, and its compiler imports what it has deprecated.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script"),
]

GRIDS = {5: SplineGrid(cells=5), 13: SplineGrid(cells=13), 7: SplineGrid(cells=7, limit=2.5)}
# Tokens, inputs, outputs: one of each; nothing round; a real layer; few tokens and many.
SIZES = [(1, 16, 8), (7, 5, 3), (333, 100, 77), (333, 208, 136), (1000, 192, 768), (2100, 768, 192)]
# The bound of the issue for bfloat16; float32's products are exact in float32.
BOUNDS = {torch.bfloat16: 5e-3, torch.float32: 5e-6}

Layer = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel does not write stays NaN."""
    new_empty, empty_like = Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(Tensor, "new_empty", lambda *a, **k: new_empty(*a, **k).fill_(float("nan")))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(float("nan")))


def layer(tokens: int, inputs: int, outputs: int, grid: SplineGrid, dtype: torch.dtype) -> Layer:
    """Inputs with borders, ends and values far outside among them, a weight of unit outputs, a gradient."""
    generator = torch.Generator("cuda").manual_seed(tokens)
    x = torch.randn(tokens, inputs, generator=generator, device="cuda") * 0.5 * grid.limit
    borders = torch.linspace(-grid.limit, grid.limit, grid.cells + 1, device="cuda")
    special = torch.cat([borders, torch.tensor([1e30, -1e30, 0.0], device="cuda")])[: x.numel() // 2]
    x.view(-1)[: len(special)] = special
    weight = torch.randn(grid.bases + 1, inputs, outputs, generator=generator, device="cuda") * inputs**-0.5
    grad = torch.randn(tokens, outputs, generator=generator, device="cuda")
    return x.to(dtype), weight.to(dtype), grad.to(dtype)


def reference(x: Tensor, weight: Tensor, grad: Tensor, grid: SplineGrid) -> tuple[Tensor, Tensor, Tensor]:
    wide_x, wide_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    y = edge_linear_reference(wide_x, wide_weight, grid)
    return y.detach(), *torch.autograd.grad(y, (wide_x, wide_weight), grad.double())


def error(found: Tensor, wanted: Tensor, ignored: Tensor | None = None) -> float:
    """Relative, in the Frobenius norm; never small where something is NaN."""
    difference = found.double() - wanted
    if ignored is not None:
        difference, wanted = difference.masked_fill(ignored, 0), wanted.masked_fill(ignored, 0)
    return float(difference.norm() / wanted.norm().clamp(min=1e-30))


def forwards(x: Tensor, weight: Tensor, grid: SplineGrid) -> dict[str, Callable[[], Tensor]]:
    """Every forward pass that serves the case."""
    sizes = weight.shape
    dtype = str(x.dtype).removeprefix("torch.")
    ways: dict[str, Callable[[], Tensor]] = {
        "fused": lambda: launch.forward(x, weight, grid),
        "slab": lambda: slab.forward(x, weight, lambda x: launch.expand(x, grid), 1 << 20),
        "gather": lambda: launch.gather(x, weight, grid),
        "routed": lambda: edge_linear(x, weight, grid),
    }
    if hopper.misfit(torch.cuda.get_device_capability(), *sizes, dtype) is None:
        assert hopper.unbuilt() is None
        ways["cuda"] = lambda: hopper.forward(x, weight, grid.limit)
    return ways


def gradients(layer: Layer, grid: SplineGrid) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    x, weight, grad = layer
    dtype = str(x.dtype).removeprefix("torch.")
    is_served = hopper.misfit(torch.cuda.get_device_capability(), *weight.shape, dtype) is None
    cuda = (
        lambda: hopper.input_gradient(x, weight, grad, grid.limit),
        lambda: hopper.weight_gradient(x, grad, grid.limit),
    )
    contract = lambda x, slab, out: launch.contract(x, slab, out, grid)  # noqa: E731
    expand = lambda x: launch.expand(x, grid)  # noqa: E731
    return {
        "fused": (
            lambda: launch.input_gradient(x, weight, grad, grid),
            lambda: launch.weight_gradient(x, grad, grid),
        ),
        "slab": (
            lambda: slab.input_gradient(x, weight, grad, contract, 1 << 20),
            lambda: slab.weight_gradient(x, grad, len(weight), expand, 1 << 20),
        ),
        **({"cuda": cuda} if is_served else {}),
    }


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("cells", GRIDS)
@pytest.mark.parametrize(("tokens", "inputs", "outputs"), SIZES)
def test_values_and_gradients_are_near_float64_and_the_same_twice(
    tokens: int, inputs: int, outputs: int, cells: int, dtype: torch.dtype
) -> None:
    grid = GRIDS[cells]
    case = layer(tokens, inputs, outputs, grid, dtype)
    y, dx, dw = reference(*case, grid)
    # At the ends of the grid the slope jumps, and rounding decides which side an input is on.
    at_ends = (case[0].double().abs() - grid.limit).abs() < 1e-5
    for way, forward in forwards(case[0], case[1], grid).items():
        found = forward()
        assert error(found, y) < BOUNDS[dtype], way
        assert torch.equal(found, forward()), way
    for way, (of_input, of_weight) in gradients(case, grid).items():
        assert error(of_input(), dx, at_ends) < BOUNDS[dtype], way
        assert error(of_weight(), dw) < BOUNDS[dtype], way
        assert torch.equal(of_input(), of_input()), way
        assert torch.equal(of_weight(), of_weight()), way


@pytest.mark.skipif(torch.cuda.get_device_capability() != hopper.HOPPER, reason="needs a Hopper GPU")
@pytest.mark.parametrize("ends", [[100, 100, 400, 1000], [0, 0, 1000, 1000], [1000, 1000, 1000, 1000]], ids=str)
def test_rows_in_groups_have_each_their_own_weight(ends: list[int]) -> None:
    grid, groups = GRIDS[5], len(ends)
    x, _, grad = layer(1000, 192, 264, grid, torch.bfloat16)
    weight = torch.stack([layer(group, 192, 264, grid, torch.bfloat16)[1] for group in range(1, groups + 1)])
    ends_E = torch.tensor(ends, dtype=torch.int32, device="cuda")
    found = {
        "y": hopper.forward(x, weight, grid.limit, ends_E),
        "dx": hopper.input_gradient(x, weight, grad, grid.limit, ends_E),
        "dw": hopper.weight_gradient(x, grad, grid.limit, ends_E),
    }
    for group, (first, last) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        y, dx, dw = reference(x[first:last], weight[group], grad[first:last], grid)
        if first == last:
            assert torch.equal(found["dw"][group], torch.zeros_like(weight[group]))
            continue
        at_ends = (x[first:last].double().abs() - grid.limit).abs() < 1e-5
        assert error(found["y"][first:last], y) < 5e-3
        assert error(found["dx"][first:last], dx, at_ends) < 5e-3
        assert error(found["dw"][group], dw) < 5e-3


@pytest.mark.skipif(torch.cuda.get_device_capability() != hopper.HOPPER, reason="needs a Hopper GPU")
def test_no_tokens_and_tensors_that_begin_anywhere_are_served() -> None:
    grid = GRIDS[5]
    x, weight, grad = layer(300, 64, 72, grid, torch.bfloat16)
    moved = [
        torch.empty(t.numel() + 1, dtype=t.dtype, device="cuda")[1:].view(t.shape).copy_(t) for t in (x, weight, grad)
    ]
    assert all(tensor.data_ptr() % 16 for tensor in moved)
    assert torch.equal(hopper.forward(*moved[:2], grid.limit), hopper.forward(x, weight, grid.limit))
    assert torch.equal(hopper.input_gradient(*moved, grid.limit), hopper.input_gradient(x, weight, grad, grid.limit))
    assert torch.equal(
        hopper.weight_gradient(moved[0], moved[2], grid.limit), hopper.weight_gradient(x, grad, grid.limit)
    )
    assert hopper.forward(x[:0], weight, grid.limit).shape == (0, 72)
    assert not hopper.weight_gradient(x[:0], grad[:0], grid.limit).any()


@pytest.mark.skipif(torch.cuda.get_device_capability() != hopper.HOPPER, reason="needs a Hopper GPU")
def test_a_thread_that_has_done_nothing_on_the_gpu_may_call_first() -> None:
    # As autograd's threads are: the driver knows no device of theirs.
    x, weight, grad = layer(300, 64, 72, GRIDS[5], torch.bfloat16)
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(hopper.input_gradient, x, weight, grad, 3.0).result()
    assert torch.equal(found, hopper.input_gradient(x, weight, grad, 3.0))


def test_nan_and_infinity_stay_in_their_rows() -> None:
    grid = GRIDS[5]
    x, weight, _ = layer(333, 192, 768, grid, torch.bfloat16)
    x[3, 4], x[200, 1] = float("nan"), float("inf")
    others = [row for row in range(333) if row not in (3, 200)]
    for way, forward in forwards(x, weight, grid).items():
        y = forward()
        assert y[3].isnan().all(), way
        assert not y[200].isfinite().any(), way
        assert y[others].isfinite().all(), way


def test_a_training_step_runs_under_a_cuda_graph_and_compiled() -> None:
    grid = GRIDS[5]
    x, weight, grad = layer(512, 192, 768, grid, torch.bfloat16)
    x, weight = x.requires_grad_(), weight.requires_grad_()

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(edge_linear(x, weight, grid), (x, weight), grad)

    wanted = step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    compiled = torch.compile(lambda x: edge_linear(x.sin(), weight, grid).relu(), fullgraph=True)
    torch.testing.assert_close(compiled(x), edge_linear(x.sin(), weight, grid).relu(), rtol=2e-2, atol=2e-2)


def test_the_slabs_keep_to_their_bytes() -> None:
    grid = GRIDS[5]
    x, weight, grad = layer(8192, 1024, 2048, grid, torch.bfloat16)
    edge_linear(x, weight, grid)
    for call in (
        lambda: slab.forward(x, weight, lambda x: launch.expand(x, grid)),
        lambda: slab.input_gradient(x, weight, grad, lambda x, slab, out: launch.contract(x, slab, out, grid)),
        lambda: slab.weight_gradient(x, grad, 9, lambda x: launch.expand(x, grid)),
    ):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        peak = torch.cuda.max_memory_allocated() - before - result.numel() * 2
        assert peak <= 0.15e9
