"""The edge layer as operators of torch's library, and the rule that routes them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.bspline import SplineGrid, edge_linear, grouped_edge_linear
from kanctl.trainer.ops.bspline.grouped import grouped_edge_linear_backward_op, grouped_edge_linear_op
from kanctl.trainer.ops.bspline.library import edge_linear_backward_op, edge_linear_op
from kanctl.trainer.ops.bspline.route import EdgeRoutes, route_edge_linear, route_grouped_edge_linear
from kanctl.trainer.ops.route import Machine, machine_of

H200 = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
A100 = Machine(device="cuda", capability=(8, 0), triton=(3, 6))
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
    assert routes.weight_gradient.implementation == "cuda"
    assert route_edge_linear(H200, **SMALL, tokens=2).forward.implementation == "cuda"  # type: ignore[arg-type]


def test_second_derivatives_are_refused() -> None:
    x, weight = case()
    (grad,) = torch.autograd.grad(edge_linear(x, weight, SplineGrid(cells=5)).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="edge_linear_backward"):
        grad.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("machine", "sizes", "implementation", "reason"),
    [
        (machine_of(torch.device("cpu")), LARGE, "torch", "the device is cpu; Triton kernels need a GPU"),
        (A100, LARGE, "slab", "the vendor's library multiplies; not cuda: its instructions are Hopper's alone"),
        (A100, SMALL, "slab", "the vendor's library multiplies"),
        (H200, {**LARGE, "unbuilt": "no compiler"}, "slab", "not cuda: no compiler"),
        (replace(H200, without_compiler="no nvcc"), LARGE, "slab", "not cuda: no nvcc"),
        (H200, {**LARGE, "features": 17}, "slab", "not cuda: it is for five cells, found 13"),
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


def test_hopper_runs_cuda_kernels() -> None:
    routes = route_edge_linear(H200, **LARGE)  # type: ignore[arg-type]
    assert routes.forward.implementation == "cuda"
    assert routes.forward.reason == "2:4: of every four features two are zero, which takes half the steps"
    assert routes.input_gradient.implementation == "cuda"


ENDS = torch.tensor([0, 3, 3, 7], dtype=torch.int32)


@pytest.mark.parametrize("form", ["dense", "cell"])
def test_the_operators_of_grouped_rows_keep_torchs_rules(form: str) -> None:
    x, weight = case()[0], torch.randn(4, 9, 5, 3, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(grouped_edge_linear_op, (x, weight, ENDS, 5, 3.0, form))
    grad = torch.randn(7, 3, dtype=torch.float64)
    for wants in ((True, True), (True, False), (False, True)):
        options = (grad, x.detach(), weight.detach(), ENDS, 5, 3.0, form, *wants)
        torch.library.opcheck(grouped_edge_linear_backward_op, options)


def test_rows_of_a_group_give_what_a_layer_with_its_weight_gives() -> None:
    grid, (x, _) = SplineGrid(cells=5), case()
    weight = torch.randn(4, 9, 5, 3, dtype=torch.float64).requires_grad_()
    found = grouped_edge_linear(x, weight, ENDS, grid)
    wanted = torch.cat([edge_linear(x[:3], weight[1], grid), edge_linear(x[3:], weight[3], grid)])
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(y.square().sum(), (x, weight)) for y in (found, wanted)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("weight", "ends", "error", "words"),
    [
        (
            torch.randn(4, 8, 5, 3),
            ENDS,
            ValueError,
            r"wanted a weight of shape \('E', 9, 5, 'O'\), found \(4, 8, 5, 3\)",
        ),
        (torch.randn(9, 5, 3), ENDS, ValueError, r"found \(9, 5, 3\)"),
        (torch.randn(4, 9, 5, 3), ENDS.long(), ValueError, "an int32 end of each of 4 groups, found torch.int64"),
        (torch.randn(4, 9, 5, 3), ENDS[:2], ValueError, r"found torch.int32 \(2,\)"),
        (torch.randn(4, 9, 5, 3).double(), ENDS, TypeError, "dtype torch.float32, found torch.float64"),
    ],
)
def test_weights_that_do_not_fit_the_groups_are_refused(weight, ends, error, words) -> None:
    with pytest.raises(error, match=words):
        grouped_edge_linear(torch.randn(7, 5), weight, ends, SplineGrid(cells=5))


def test_few_rows_of_groups_read_their_live_weights_alone() -> None:
    sizes = {"features": 9, "groups": 4, "inputs": 64, "outputs": 32, "dtype": "bfloat16"}

    def route(machine: Machine, **options: object) -> EdgeRoutes:
        return route_grouped_edge_linear(machine, **{**sizes, **options})  # type: ignore[arg-type]

    assert route(A100, rows=4).forward.implementation == "gather"
    assert route(A100, rows=4).weight_gradient.implementation == "fused"
    assert route(A100).forward.implementation == "fused"
    assert route(A100, dtype="float64").forward.reason == "float64 is for references"
    assert route(H200, rows=4).forward.implementation == "gather"
    assert route(H200).forward.implementation == "cuda"
    assert route(H200, unbuilt="no compiler").forward.reason.endswith("not cuda: no compiler")
