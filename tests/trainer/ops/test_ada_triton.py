"""Diffusion attention's Triton kernels, in the interpreter where there is no GPU, against the direct form."""

import pytest
import torch
from torch import Tensor

from kanctl.trainer.ops import ada as package
from kanctl.trainer.ops.ada import AdaState, ada, ada_step, launch
from kanctl.trainer.ops.ada.launch import AdaInputs
from kanctl.trainer.ops.ada.library import ada_backward_op, ada_op
from kanctl.trainer.ops.ada.reference import ada_reference
from kanctl.trainer.ops.ada.route import route_ada
from kanctl.trainer.ops.route import Machine

# The interpreter computes with numpy, which warns where a masked value overflows.
pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]

# Lengths of the documents of a row: one token, less than a chunk, whole chunks, borders in and between chunks.
ROWS = [[1], [7], [64], [40, 1, 50], [64, 30], [150]]


def case(lengths: list[int], size: int = 8, taps: int = 4, decay: float = 0.1) -> AdaInputs:
    generator = torch.Generator().manual_seed(sum(lengths))
    tokens, heads = sum(lengths), 2

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    q, k, v = (draw(2, heads, tokens, size) for _ in range(3))
    # Positive and negative alike: kernels know nothing of the caller's softmax.
    weights = draw(heads, size, taps) / taps
    log_decay = -decay * draw(2, heads, tokens).square()
    position = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1).contiguous()
    return AdaInputs(q, k, v, weights, log_decay, position)


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm().clamp(min=1e-30))


@pytest.mark.parametrize(("size", "taps", "decay"), [(8, 4, 0.1), (24, 1, 0.1), (5, 7, 3.0)])
@pytest.mark.parametrize("lengths", ROWS, ids=str)
def test_values_and_gradients_are_those_of_the_direct_form(
    lengths: list[int], size: int, taps: int, decay: float
) -> None:
    compare(case(lengths, size, taps, decay))


# In all: a whole row a segment, two or three chunks of five, one.
@pytest.mark.parametrize("programs", [1, 8, 512])
@pytest.mark.parametrize("lengths", [[300], [100, 28, 2, 170]], ids=str)
def test_segments_of_any_length_give_the_same(
    lengths: list[int], programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PROGRAMS", programs)
    compare(case(lengths, 16))


def test_what_needs_no_masks_gives_the_same() -> None:
    compare(case([100, 28], 16))


def compare(inputs: AdaInputs) -> None:
    wide = [x.double().requires_grad_() for x in inputs[:5]]
    q, k, v, weights, log_decay = wide
    wanted = ada_reference(q, k, v, weights, log_decay, inputs.position_BT)
    grad = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9))
    exact = torch.autograd.grad(wanted, wide, grad.double())
    out, before, passed, _ = launch.ada_forward(inputs)
    assert error(out, wanted.detach()) < 1e-5
    found = launch.ada_backward(inputs, before, passed, grad)
    for name, value, of_reference in zip(("q", "k", "v", "taps", "decay"), found, exact, strict=True):
        if of_reference.norm() > 1e-9:
            assert error(value, of_reference) < 2e-5, name
        else:
            assert value.norm() < 1e-4, name


def test_the_same_input_gives_the_same_bits() -> None:
    inputs = case([40, 1, 50])
    first, second = launch.ada_forward(inputs), launch.ada_forward(inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_operator_keeps_torchs_rules() -> None:
    inputs = case([5, 3])
    torch.library.opcheck(ada_op, (*(x.requires_grad_() for x in inputs[:5]), inputs.position_BT))
    given = [x.detach() for x in inputs]
    out, before, passed, _ = ada_op(*given)
    torch.library.opcheck(ada_backward_op, (*given, before, passed, torch.ones_like(out)))


def test_the_public_call_gives_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = case([40, 30])
    fixed = torch.tensor([-0.1, -0.02])[None, :, None]
    found = []
    for has_kernels in (False, True):
        monkeypatch.setattr(package, "_has_kernels", lambda _, has=has_kernels: has)
        leaves = [x.clone().requires_grad_() for x in (*inputs[:4], fixed)]
        q, k, v, taps, decay = leaves
        out, state = ada(q, k, v, taps, decay, inputs.position_BT)
        grads = torch.autograd.grad(out.square().sum(), leaves)
        found.append((out.detach(), state.sum_BHCC.detach(), state.tail_BHWC, *grads))
    for plain, by_kernels in zip(*found, strict=True):
        torch.testing.assert_close(by_kernels, plain, rtol=1e-4, atol=1e-4)


def test_the_route_says_what_runs_and_why() -> None:
    gpu = Machine(device="cuda", capability=(9, 0), triton=(3, 6))
    assert route_ada(gpu, head_size=64, dtype="bfloat16").implementation == "triton"
    assert route_ada(gpu, head_size=256, dtype="bfloat16").reason == "wanted heads of at most 128, found 256"
    assert route_ada(Machine(device="cpu"), head_size=64, dtype="float32").implementation == "torch"


@pytest.mark.parametrize(("size", "taps"), [(8, 4), (40, 1), (33, 3)])
@pytest.mark.parametrize("place", [0, 1, 9])
def test_a_step_gives_what_plain_pytorch_gives(size: int, taps: int, place: int) -> None:
    inputs = case([10], size, taps)
    generator = torch.Generator().manual_seed(4)
    state = AdaState(
        sum_BHCC=torch.randn(2, 2, size, size, generator=generator),
        tail_BHWC=torch.randn(2, 2, taps - 1, size, generator=generator),
    )
    token = [x[:, :, place].contiguous() for x in (inputs.q_BHTC, inputs.k_BHTC, inputs.v_BHTC)]
    more = (inputs.taps_HCW, inputs.log_decay_BHT[:, :, place].contiguous(), inputs.position_BT[:, place].contiguous())
    wanted, after = ada_step(*token, *more, state)
    out, sum_BHCC, tail_BHWC = launch.ada_step(*token, *more, state.sum_BHCC, state.tail_BHWC)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sum_BHCC, after.sum_BHCC, rtol=1e-5, atol=1e-5)
    assert torch.equal(tail_BHWC, after.tail_BHWC)
