"""Multi-resolution attention's Triton kernels, in the interpreter where there is no GPU, against float64."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops.mra import Resolutions, by_kernels, launch
from kanctl.trainer.ops.mra.library import range_attention_op, ranges_attention_backward_op, ranges_attention_op
from kanctl.trainer.ops.mra.reference import multi_resolution_reference
from kanctl.trainer.ops.mra.route import route_mra
from kanctl.trainer.ops.route import Machine

# The interpreter computes with numpy, which warns of what is computed for keys that are not visible and then dropped.
pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
]

CASES = [
    Resolutions(window=4, levels=(3,)),
    Resolutions(window=1, levels=(1,)),
    Resolutions(window=30, levels=(5, 2)),
    Resolutions(window=7, levels=(4, 4), fuse="sum"),
    Resolutions(window=2, levels=(3, 40), fuse="sum"),
    Resolutions(window=200, levels=(2,)),
]
# Documents of a row: one token; fewer than a tile; more than two tiles; borders within and on a tile's.
DOCUMENTS = [[[1]], [[19]], [[150], [64, 66, 1, 19]]]


def operands(documents: list[list[int]], resolutions: Resolutions, size: int = 5) -> tuple[list[Tensor], Tensor]:
    """Queries, keys, values, then keys and values of the blocks of each level, and the places."""
    position = torch.tensor([[place for length in row for place in range(length)] for row in documents])
    batch, tokens = position.shape
    counts = [tokens] * 3 + [tokens // level for level in resolutions.levels for _ in range(2)]
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(batch, 2, count, size, generator=generator) for count in counts], position


def run(call, given: list[Tensor], position: Tensor, resolutions: Resolutions) -> list[Tensor]:
    """The output and the gradients of all operands, for a fixed gradient."""
    given = [x.detach().requires_grad_() for x in given]
    q, k, v, *rest = given
    out = call(q, k, v, list(zip(rest[::2], rest[1::2], strict=True)), position, resolutions)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    found = torch.autograd.grad(out, given, grad, allow_unused=True)
    return [out.detach(), *(torch.zeros_like(x) if g is None else g for x, g in zip(given, found, strict=True))]


@pytest.mark.parametrize("resolutions", CASES, ids=lambda r: f"w{r.window}-{r.levels}-{r.fuse}")
@pytest.mark.parametrize("documents", DOCUMENTS, ids=str)
def test_values_and_gradients_are_those_of_the_reference(documents: list[list[int]], resolutions: Resolutions) -> None:
    given, position = operands(documents, resolutions)
    found = run(by_kernels, given, position, resolutions)
    wanted = run(multi_resolution_reference, [x.double() for x in given], position, resolutions)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5)


def test_queries_in_parts_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    given, position = operands(DOCUMENTS[2], CASES[0])
    wanted = run(by_kernels, given, position, CASES[0])
    monkeypatch.setattr(launch, "LEAST_QUERIES", 16)
    found = run(by_kernels, given, position, CASES[0])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_the_same_input_gives_the_same_bits() -> None:
    given, position = operands([[70]], CASES[0])
    first, second = (run(by_kernels, given, position, CASES[0]) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_query_that_sees_nothing_has_zeros_and_gives_none_a_gradient() -> None:
    q, k, v = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    place, low, high = (torch.tensor([x], dtype=torch.int32) for x in ([0, 1, 2], [0, 0, 0], [-1, 0, 2]))
    out, lse = range_attention_op(q, k, v, place, low, high, 0.5, 0.0)
    assert torch.equal(out[0, 0, 0], torch.zeros(4))
    assert lse[0, 0].isfinite().tolist() == [False, True, True]
    (grad,) = torch.autograd.grad(out.sum(), q)
    assert torch.equal(grad[0, 0, 0], torch.zeros(4))
    assert grad.isfinite().all()


def test_the_operator_keeps_torchs_rules() -> None:
    q, k, v = (torch.randn(1, 2, 5, 4, requires_grad=True) for _ in range(3))
    index = torch.arange(5, dtype=torch.int32)[None]
    begin = (index - 2).clamp(min=0)
    torch.library.opcheck(range_attention_op, (q, k, v, index, begin, index, 0.5, 0.3))
    few = [x.detach()[:, :, :2].clone().requires_grad_() for x in (k, v)]
    lists = ([k, few[0]], [v, few[1]], [index, index[:, :2].contiguous()])
    given = (q, *lists, [begin, index * 0], [index, begin - 1], 0.5, [0.3, 0.0])
    torch.library.opcheck(ranges_attention_op, given)
    with torch.no_grad():
        out, lse = ranges_attention_op(*given)
        torch.library.opcheck(ranges_attention_backward_op, (*given, out, lse, torch.ones_like(out)))


def test_passes_over_parts_of_the_keys_are_one_softmax_over_all() -> None:
    q, k, v = (torch.randn(1, 2, 40, 4) for _ in range(3))
    index = torch.arange(40, dtype=torch.int32)[None]
    everything = torch.full_like(index, 39)
    parts = [slice(0, 7), slice(7, 40)]
    inputs = [
        launch.RangeInputs(
            q, k[:, :, part].contiguous(), v[:, :, part].contiguous(), index[:, part].contiguous(), index * 0,
            everything, 0.5, 0.0,
        )
        for part in parts
    ]  # fmt: skip
    whole = launch.RangeInputs(q, k, v, index, index * 0, everything, 0.5, 0.0)
    for found, wanted in zip(launch.range_forward(inputs), launch.range_forward([whole]), strict=True):
        torch.testing.assert_close(found, wanted)


def test_no_token_gives_no_output() -> None:
    empty = torch.empty(1, 2, 0, 4)
    index = torch.empty(1, 0, dtype=torch.int32)
    inputs = launch.RangeInputs(empty, empty, empty, index, index, index, 0.5, 0.0)
    out, lse = launch.range_forward([inputs])
    assert out.shape == empty.shape
    grad_q, [grad_k], [grad_v] = launch.range_backward([inputs], out, lse, empty, lse)
    assert all(x.shape == empty.shape for x in (grad_q, grad_k, grad_v))


def test_the_route_says_why() -> None:
    h200 = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
    assert route_mra(h200, head_size=64, dtype="bfloat16").implementation == "triton"
    assert route_mra(h200, head_size=256, dtype="bfloat16").reason == "wanted heads of at most 128, found 256"
    assert route_mra(h200, head_size=64, dtype="float64").reason == "float64 is for references"
    assert route_mra(Machine(device="cpu"), head_size=64, dtype="float32").implementation == "torch"
