"""The promises that every token mixer keeps: causal, closed at borders, the same by steps, in every dtype."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from kanctl.trainer.model.ada import ArnoldDiffusionAttention
from kanctl.trainer.model.attention import CausalAttention
from kanctl.trainer.model.frame import Frame, one_document
from kanctl.trainer.model.kalman import KalmanFilter
from kanctl.trainer.model.knowledge import KnowledgeBias
from kanctl.trainer.model.lexer_rules import FEATURE_SIZES
from kanctl.trainer.model.mra import MultiResolutionAttention

WIDTH, HEADS = 12, 2
MAKERS = {
    "causal": lambda: CausalAttention(WIDTH, HEADS),
    "qk-norm": lambda: CausalAttention(WIDTH, HEADS, qk_norm=True),
    "knowledge": lambda: CausalAttention(WIDTH, HEADS, knowledge=KnowledgeBias(HEADS, rank=3)),
    "mra": lambda: MultiResolutionAttention(WIDTH, HEADS, window=4, levels=(3,)),
    "mra-levels": lambda: MultiResolutionAttention(WIDTH, HEADS, window=3, levels=(2, 5)),
    "mra-sum": lambda: MultiResolutionAttention(WIDTH, HEADS, window=2, levels=(4, 3), fuse="sum"),
    "mra-narrow": lambda: MultiResolutionAttention(WIDTH, HEADS, window=1, levels=(1,)),
    "ada": lambda: ArnoldDiffusionAttention(WIDTH, HEADS, chunk=5),
    "ada-data": lambda: ArnoldDiffusionAttention(WIDTH, HEADS, window=3, data_dependent_decay=True),
    "kalman": lambda: KalmanFilter(WIDTH),
    "mra-wide": lambda: MultiResolutionAttention(WIDTH, HEADS, window=50, levels=(60,)),
}
MIXERS = pytest.mark.parametrize("name", MAKERS)
DOCUMENTS = [[12, 25], [37], [1, 3, 33]]


def mixer(name: str) -> nn.Module:
    made = MAKERS[name]().double()
    made.start(torch.Generator().manual_seed(1), 1.0)
    if name == "knowledge":
        # P_k starts at zero; the promises must hold for a bias that does something.
        made.knowledge.to_key.weight.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
    return made


def frame(documents: list[list[int]]) -> Frame:
    """Rows of documents with so many tokens, with features that depend on the place in the row."""
    position_BT = torch.tensor([[place for length in row for place in range(length)] for row in documents])
    return with_features(Frame(position_BT=position_BT, is_one_document=False))


def with_features(bare: Frame) -> Frame:
    generator = torch.Generator().manual_seed(3)
    batch, tokens = bare.position_BT.shape
    drawn = [torch.randint(0, size, (batch, tokens), generator=generator) for size in FEATURE_SIZES]
    return replace(bare, knowledge_BTF=torch.stack(drawn, -1))


def cut(whole: Frame, tokens: int) -> Frame:
    return replace(whole, position_BT=whole.position_BT[:, :tokens], knowledge_BTF=whole.knowledge_BTF[:, :tokens])


def inputs(batch: int, tokens: int, seed: int = 5) -> Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps(made: nn.Module, x_BTD: Tensor, whole: Frame, prefilled: int) -> Tensor:
    """The values of a prefill of so many tokens and of a step for each of the others."""
    out_BTD, state = made.prefill(x_BTD[:, :prefilled], cut(whole, prefilled))
    outs = [*out_BTD.unbind(1)]
    for t in range(prefilled, x_BTD.shape[1]):
        known = (whole.knowledge_BTF[:, t],) if getattr(made, "knowledge", None) else ()
        out_BD, state = made.step(x_BTD[:, t], whole.position_BT[:, t], state, *known)
        outs.append(out_BD)
    return torch.stack(outs, 1)


@MIXERS
@pytest.mark.parametrize(
    ("prefilled", "dtype", "tolerance"),
    [(1, torch.float64, 1e-10), (30, torch.float64, 1e-10), (13, torch.float32, 1e-4)],
)
def test_prefill_and_steps_give_the_values_of_forward(name, prefilled, dtype, tolerance) -> None:
    made, x, whole = mixer(name).to(dtype), inputs(3, 37).to(dtype), frame(DOCUMENTS)
    torch.testing.assert_close(steps(made, x, whole, prefilled), made(x, whole), rtol=0, atol=tolerance)


@MIXERS
def test_one_document_frames_give_the_same_by_their_shorter_way(name: str) -> None:
    made, x, short = mixer(name), inputs(2, 19), with_features(one_document(2, 19))
    expected = made(x, replace(short, is_one_document=False))
    torch.testing.assert_close(made(x, short), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(steps(made, x, short, 7), expected, rtol=0, atol=1e-10)


@MIXERS
def test_place_zero_forgets_all_that_came_before(name: str) -> None:
    made, x, whole = mixer(name), inputs(2, 24), frame([[11, 13], [11, 13]])
    alone = replace(whole, position_BT=whole.position_BT[:, 11:], knowledge_BTF=whole.knowledge_BTF[:, 11:])
    torch.testing.assert_close(steps(made, x, whole, 4)[:, 11:], made(x[:, 11:], alone), rtol=0, atol=1e-10)


@MIXERS
@pytest.mark.parametrize("tokens", [1, 2, 23])
def test_each_token_sees_itself_and_all_earlier_ones_of_its_document_and_nothing_else(name: str, tokens: int) -> None:
    made, x = mixer(name), inputs(1, tokens).requires_grad_()
    lengths = [tokens] if tokens < 3 else [2, tokens - 9, 7]
    whole = frame([lengths])
    first_T = whole.first_BT[0]
    for t in range(tokens):
        (slope_BTD,) = torch.autograd.grad(made(x, whole)[0, t].square().sum(), x)
        is_seen_T = slope_BTD[0].norm(dim=-1) > 0
        index_T = torch.arange(tokens)
        assert torch.equal(is_seen_T, (index_T >= first_T[t]) & (index_T <= t)), t


@MIXERS
def test_a_changed_token_changes_no_bit_before_it_or_in_another_document(name: str) -> None:
    made, x, whole = mixer(name), inputs(3, 37), frame(DOCUMENTS)
    before = made(x, whole)
    for place in (0, 7, 12, 30, 36):
        changed = x.clone()
        changed[:, place] += 3
        after = made(changed, whole)
        assert torch.equal(after[:, :place], before[:, :place])
        index_T = torch.arange(37)
        is_other_BT = (whole.first_BT > place) & (index_T > place)
        assert torch.equal(after[is_other_BT], before[is_other_BT])
        assert not (after[:, place] == before[:, place]).all(-1).any()


@MIXERS
@pytest.mark.parametrize("padding", [1, 10])
def test_left_padding_changes_nothing(name: str, padding: int) -> None:
    made, x, whole = mixer(name), inputs(2, 21), frame([[21], [21]])
    padded_frame = frame([[padding, 21], [padding, 21]])
    padded_frame.knowledge_BTF[:, padding:] = whole.knowledge_BTF
    padded = torch.cat([inputs(2, padding, seed=9), x], 1)
    torch.testing.assert_close(made(padded, padded_frame)[:, padding:], made(x, whole), rtol=0, atol=1e-12)


@MIXERS
def test_a_prefill_leaves_a_state_that_holds_no_gradient(name: str) -> None:
    made, x = mixer(name), inputs(2, 5)
    out, state = made.prefill(x, frame([[5], [2, 3]]))
    assert out.requires_grad
    assert tensors_of(state)
    assert not any(tensor.requires_grad for tensor in tensors_of(state))


def tensors_of(state: object) -> list[Tensor]:
    """All tensors of a state, of its levels too."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, int):
        return []
    parts = state if isinstance(state, tuple) else [getattr(state, field.name) for field in fields(state)]
    return [tensor for part in parts for tensor in tensors_of(part)]


@MIXERS
def test_bfloat16_stays_near_float64_in_values_and_gradients(name: str) -> None:
    made, x, whole = mixer(name), inputs(2, 37), frame(DOCUMENTS[:2])
    exact = made(x, whole)
    exact.square().mean().backward()
    slopes = torch.cat([weight.grad.flatten() for weight in made.parameters()])
    made.zero_grad()
    narrow = made.bfloat16()
    out = narrow(x.bfloat16(), whole)
    out.square().mean().backward()
    assert out.dtype == torch.bfloat16
    assert (out.double() - exact).norm() < 0.03 * exact.norm()
    narrow_slopes = torch.cat([weight.grad.double().flatten() for weight in narrow.parameters()])
    assert (narrow_slopes - slopes).norm() < 0.08 * slopes.norm()
    by_steps = steps(narrow, x.bfloat16(), whole, 5)
    assert (by_steps.double() - exact).norm() < 0.03 * exact.norm()


@MIXERS
def test_the_slopes_are_those_of_finite_differences(name: str) -> None:
    made, x, whole = mixer(name), 2 * inputs(1, 9), frame([[2, 7]])
    assert torch.autograd.gradcheck(lambda y: made(y, whole), x.requires_grad_(), fast_mode=True)
    weights = [weight.detach().requires_grad_() for weight in made.parameters()]
    names = [name for name, _ in made.named_parameters()]
    run = lambda *given: torch.func.functional_call(made, dict(zip(names, given, strict=True)), (x.detach(), whole))  # noqa: E731
    assert torch.autograd.gradcheck(run, weights, fast_mode=True)


@MIXERS
def test_start_values_have_the_spreads_of_the_definition(name: str) -> None:
    made = MAKERS[name]()
    made.start(torch.Generator().manual_seed(1), 0.25)
    entering = made.observe if name == "kalman" else made.qkv
    torch.testing.assert_close(entering.weight.std().item(), WIDTH**-0.5, rtol=0.1, atol=0)
    torch.testing.assert_close(made.out.weight.std().item(), 0.25 * WIDTH**-0.5, rtol=0.15, atol=0)


@pytest.mark.parametrize(("width", "heads"), [(12, 5), (12, 4), (12, 0)])
def test_widths_that_rotary_positions_cannot_turn_are_refused(width: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"wanted an even width / heads, found {width} / {heads}"):
        CausalAttention(width, heads)
    with pytest.raises(ValueError, match=f"wanted an even width / heads, found {width} / {heads}"):
        MultiResolutionAttention(width, heads, window=2, levels=(2,))
