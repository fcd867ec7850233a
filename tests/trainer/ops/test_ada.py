"""Arnold diffusion attention: its three forms are one function, with every gradient, at any size and decay."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from kanctl.trainer.ops.ada import AdaState, ada, ada_step, diffuse
from kanctl.trainer.ops.ada.reference import ada_reference, diffuse_reference

Inputs = tuple[Tensor, ...]


def positions(batch: int, tokens: int) -> Tensor:
    """Rows of one, two, three ... documents."""
    begins = torch.zeros(batch, tokens, dtype=torch.long)
    for row in range(batch):
        for cut in range(1, row + 1):
            place = tokens * cut // (row + 1)
            begins[row, place] = place
    return torch.arange(tokens) - begins.cummax(1).values


def inputs(batch: int, heads: int, tokens: int, size: int, window: int = 4, fixed: bool = False) -> Inputs:
    torch.manual_seed(tokens * 100 + size)
    q, k, v = torch.randn(3, batch, heads, tokens, size, dtype=torch.float64)
    taps = torch.randn(heads, size, window, dtype=torch.float64).softmax(-1)
    decay = -torch.rand(heads, 1) if fixed else -3 * torch.rand(batch, heads, tokens)
    return tuple(x.double().requires_grad_() for x in (q, k, v, taps, decay))


@pytest.mark.parametrize(("tokens", "chunk"), [(1, 4), (2, 1), (13, 4), (13, 13), (13, 64), (37, 8)], ids=str)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "data"])
def test_chunks_give_the_values_and_gradients_of_the_direct_form(tokens: int, chunk: int, fixed: bool) -> None:
    made = inputs(3, 2, tokens, 5, fixed=fixed)
    place = positions(3, tokens)
    q, k, v, taps, decay = made
    wanted = ada_reference(q, k, v, taps, decay.expand(3, 2, tokens), place)
    found, _ = ada(*made, place, chunk)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    pull = torch.randn_like(wanted)
    for one, other in zip(torch.autograd.grad(found, made, pull), torch.autograd.grad(wanted, made, pull), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [1, 2, 4, 9])
def test_diffusion_is_that_of_the_reference(window: int) -> None:
    _, k, _, taps, _ = inputs(3, 2, 6, 3, window)
    torch.testing.assert_close(diffuse(k, taps, positions(3, 6)), diffuse_reference(k, taps, positions(3, 6)))


def test_gradients_are_those_of_finite_differences() -> None:
    assert gradcheck(lambda *x: ada(*x, positions(2, 5), 2)[0], inputs(2, 1, 5, 2))


@pytest.mark.parametrize("split", [1, 5, 11])
def test_steps_go_on_from_chunks(split: int) -> None:
    q, k, v, taps, decay = (x.detach() for x in inputs(3, 2, 12, 4))
    place = positions(3, 12)
    wanted, last = ada(q, k, v, taps, decay, place, 4)
    _, state = ada(q[:, :, :split], k[:, :, :split], v[:, :, :split], taps, decay[..., :split], place[:, :split], 4)
    for t in range(split, 12):
        out, state = ada_step(q[:, :, t], k[:, :, t], v[:, :, t], taps, decay[..., t], place[:, t], state)
        torch.testing.assert_close(out, wanted[:, :, t], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state.sum_BHCC, last.sum_BHCC, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state.tail_BHWC, last.tail_BHWC)


@pytest.mark.parametrize("rate", [-1e-6, -0.03, -50.0])
def test_long_sequences_stay_finite_at_any_decay(rate: float) -> None:
    q, k, v, taps, _ = (x.detach().float() for x in inputs(1, 1, 20_000, 4))
    out, state = ada(q, k, v, taps, torch.full((1, 1), rate), torch.arange(20_000)[None], 128)
    assert out.isfinite().all()
    assert state.sum_BHCC.isfinite().all()
    wide, _ = ada(
        q.double(), k.double(), v.double(), taps.double(), torch.full((1, 1), rate), torch.arange(20_000)[None]
    )
    assert (out - wide).norm() / wide.norm() < 1e-4


def test_bfloat16_keeps_states_wide() -> None:
    made = inputs(2, 2, 50, 8)
    wanted = ada_reference(*made, positions(2, 50))
    found, state = ada(*(x.detach().bfloat16() for x in made[:4]), made[4].detach(), positions(2, 50), 16)
    assert found.dtype == torch.bfloat16
    assert state.sum_BHCC.dtype == torch.float32 or state.sum_BHCC.dtype == torch.float64
    assert (found - wanted).norm() / wanted.norm() < 0.03


def test_the_plain_formula_is_a_special_case() -> None:
    """One tap and no decay: unnormalised causal linear attention."""
    q, k, v, _, _ = inputs(1, 1, 9, 3)
    found, _ = ada(q, k, v, torch.ones(1, 3, 1).double(), torch.zeros(1, 1).double(), positions(1, 9), 4)
    scores = torch.nn.functional.silu(q) @ torch.nn.functional.silu(k).transpose(2, 3)
    torch.testing.assert_close(found, scores.tril() @ v * 3**-0.5)


def test_a_document_that_begins_forgets_the_state() -> None:
    q, k, v, taps, decay = (x.detach() for x in inputs(1, 1, 1, 3))
    full = AdaState(sum_BHCC=torch.full((1, 1, 3, 3), 1e3).double(), tail_BHWC=torch.full((1, 1, 3, 3), 1e3).double())
    out, _ = ada_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], taps, decay[..., 0], torch.zeros(1, dtype=torch.long), full)
    torch.testing.assert_close(out, ada(q, k, v, taps, decay, positions(1, 1))[0][:, :, 0])


def test_a_chunk_of_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted a chunk of at least 1 token, found 0"):
        ada(*inputs(1, 1, 2, 2), positions(1, 2), 0)
