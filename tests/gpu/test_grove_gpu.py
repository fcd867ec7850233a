"""Groves on a GPU against every subnet for every token in float64: loads, gradients, same bits, graphs, no waiting."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.model.grove import GatedSubnets, Grove, KanSubnets
from kanctl.trainer.ops.bspline import SplineGrid
from kanctl.trainer.ops.grove.reference import grove_reference

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

pytestmark = [
    pytest.mark.gpu,
    # Of PyTorch, about what it may not notice.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]

WIDTH, HIDDEN, EXPERTS = 72, 40, 6
# Of whole layers in a row, each of which rounds: two norms, two edge layers, a gate. Of a gate's bias the gradient is
# one sum over all tokens, of either sign: 2.1e-2 was found in bfloat16.
BOUNDS = {torch.bfloat16: 3e-2, torch.float32: 1e-5}


def make(kind: str, active: int, dtype: torch.dtype) -> Grove:
    subnets: KanSubnets | GatedSubnets
    if kind == "kan":
        subnets = KanSubnets(EXPERTS, WIDTH, HIDDEN, SplineGrid())
    else:
        subnets = GatedSubnets(EXPERTS, WIDTH, HIDDEN)
    grove = Grove(WIDTH, subnets, experts=EXPERTS, active=active, selector_rank=3)
    grove.start(torch.Generator().manual_seed(1), 1.0)
    with torch.no_grad():
        grove.gate_ED.normal_(0, WIDTH**-0.5, generator=torch.Generator().manual_seed(3))
    return grove.to("cuda", dtype)


def draw(tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator("cuda").manual_seed(tokens)
    x, grad = (torch.randn(tokens, WIDTH, generator=generator, device="cuda") for _ in range(2))
    return x.to(dtype), grad.to(dtype)


def gradients(grove: Grove, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    x = x.detach().requires_grad_()
    y = grove(x)
    return y.detach(), *torch.autograd.grad(y, (x, *grove.parameters()), grad)


def reference(grove: Grove, x: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    rows_E = torch.arange(EXPERTS, device="cuda", dtype=torch.int32)
    offset_E = grove.balance_ticks_E.double() * grove.balance_rate
    x = x.detach().requires_grad_()
    gates = (grove.selector_ErD, grove.gate_ED, grove.gate_bias_E, offset_E, grove.active)
    y = grove_reference(x, *gates, lambda e, x: grove.subnets(x, len(x) * (rows_E >= e).int()))
    return y.detach(), *torch.autograd.grad(y, (x, *grove.parameters()), grad)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("kind", ["kan", "mlp"])
@pytest.mark.parametrize(("tokens", "active"), [(1, 1), (1, 2), (333, 1), (1000, 2), (77, EXPERTS)])
@pytest.mark.parametrize("load", ["own", "all to one", "one empty"])
def test_values_and_gradients_are_near_float64_and_the_same_twice(
    kind: str, tokens: int, active: int, load: str, dtype: torch.dtype
) -> None:
    grove, (x, grad) = make(kind, active, dtype), draw(tokens, dtype)
    grove.balance_ticks_E[-1] = {"own": 0, "all to one": 10**6, "one empty": -(10**6)}[load]
    wide = make(kind, active, dtype).double()
    wide.balance_ticks_E.copy_(grove.balance_ticks_E)
    found, again = gradients(grove, x, grad), gradients(grove, x, grad)
    wanted = reference(wide, x.double(), grad.double())
    names = ("y", "dx", *(name for name, _ in grove.named_parameters()))
    # One expert's share is 1 whatever the selectors say: their gradient is 0, and what is found is its rounding.
    for name, one, other, exact in zip(names, found, again, wanted, strict=True):
        assert torch.equal(one, other), name
        scale = exact.norm().clamp(min=1e-3 * float(wanted[0].norm()))
        assert float((one.double() - exact).norm() / scale) < BOUNDS[dtype], name


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_a_step_waits_for_nothing_and_runs_under_a_cuda_graph(kind: str) -> None:
    grove, (x, grad) = make(kind, 2, torch.bfloat16), draw(500, torch.bfloat16)
    wanted = gradients(grove, x, grad)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(grove, x, grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gradients(grove, x, grad)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_nan_reaches_its_own_token_alone() -> None:
    grove, (x, _) = make("kan", 2, torch.bfloat16), draw(200, torch.bfloat16)
    x[3, 4], x[90, 1] = float("nan"), float("inf")
    y = grove(x)
    assert y[3].isnan().all()
    assert not y[90].isfinite().any()
    others = [row for row in range(200) if row not in (3, 90)]
    assert y[others].isfinite().all()
