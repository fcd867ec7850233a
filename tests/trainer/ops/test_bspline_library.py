"""The edge layer as operators of torch's library, and the rule that routes them."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.bspline import SplineGrid, edge_linear
from kanctl.trainer.ops.bspline.library import edge_linear_backward_op, edge_linear_op
from kanctl.trainer.ops.bspline.route import route_edge_linear
from kanctl.trainer.ops.route import Machine, machine_of

H200 = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
LARGE = {"features": 9, "inputs": 4096, "outputs": 4096, "dtype": "bfloat16"}
SMALL = {"features": 9, "inputs": 192, "outputs": 768, "dtype": "bfloat16"}


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 5, generator=generator, dtype=dtype).requires_grad_()
    return x, torch.randn(9, 5, 3, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("form", ["dense", "cell"])
def test_the_operators_keep_torchs_rules(form: str) -> None:
    x, weight = case()
    torch.library.opcheck(edge_linear_op, (x, weight, 5, 3.0, form))
    grad = torch.randn(7, 3, dtype=torch.float64)
    for wants in ((True, True), (True, False), (False, True)):
        options = (grad, x.detach(), weight.detach(), 5, 3.0, form, *wants)
        torch.library.opcheck(edge_linear_backward_op, options)


def test_a_compiled_layer_gives_the_same_values_and_gradients() -> None:
    grid = SplineGrid(cells=5)

    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return edge_linear(x * 2, weight, grid).sin()

    (x, weight), (x2, weight2) = case(torch.float32), case(torch.float32)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight), layer(x2, weight2))
    compiled(x, weight).sum().backward()
    layer(x2, weight2).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(x.grad, x2.grad)
    torch.testing.assert_close(weight.grad, weight2.grad)


def test_a_checkpointed_layer_gives_the_same_gradients() -> None:
    grid = SplineGrid(cells=5)
    (x, weight), (x2, weight2) = case(), case()
    torch.utils.checkpoint.checkpoint(edge_linear, x, weight, grid, use_reentrant=False).sum().backward()  # type: ignore[no-untyped-call]
    edge_linear(x2, weight2, grid).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, x2.grad if x2.grad is not None else x)


def test_one_token_reads_its_live_weights_alone() -> None:
    routes = route_edge_linear(H200, **SMALL, tokens=1)  # type: ignore[arg-type]
    assert routes.forward.implementation == "gather"
    assert routes.forward.reason == "one token: 5 of each edge's 9 weights are live"
    assert routes.weight_gradient.implementation == "fused"
    assert route_edge_linear(H200, **SMALL, tokens=2).forward.implementation == "fused"  # type: ignore[arg-type]


def test_second_derivatives_are_refused() -> None:
    x, weight = case()
    (grad,) = torch.autograd.grad(edge_linear(x, weight, SplineGrid(cells=5)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="edge_linear_backward"):
        grad.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("machine", "sizes", "implementation", "reason"),
    [
        (machine_of(torch.device("cpu")), LARGE, "torch", "the device is cpu; Triton kernels need a GPU"),
        (H200, LARGE, "slab", "150,994,944 weights: the vendor's product is the larger part"),
        (H200, SMALL, "fused", "1,327,104 weights: a slab's traffic would be the larger part"),
        (H200, {**LARGE, "dtype": "float64"}, "torch", "float64 is for references"),
        (Machine(device="cuda", capability=(7, 5), triton=(3, 6)), LARGE, "torch", "need compute capability 8.0"),
        (Machine(device="cuda", capability=(9, 0), triton=(3, 2)), LARGE, "torch", "wanted Triton 3.6, found 3.2"),
        (Machine(device="cuda", capability=(9, 0)), LARGE, "torch", "wanted Triton 3.6, found none"),
    ],
)
def test_the_route_says_what_runs_and_why(
    machine: Machine, sizes: dict[str, int | str], implementation: str, reason: str
) -> None:
    routes = route_edge_linear(machine, **sizes)  # type: ignore[arg-type]
    for route in (routes.forward, routes.input_gradient, routes.weight_gradient):
        assert route.implementation == implementation
        assert reason in route.reason
