"""Causal attention against the definition written out: mask, documents, QK-norm, knowledge bias, cache."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kanctl.trainer.model.attention import CausalAttention
from kanctl.trainer.model.frame import Frame, one_document
from kanctl.trainer.model.knowledge import KnowledgeBias
from kanctl.trainer.model.rotary import rotary_turns, rotate

WIDTH, HEADS, SIZES = 24, 3, (5, 2)
POSITIONS = torch.tensor([[*range(11)], [0, 1, 2, 0, *range(7)]])


def attention(qk_norm: bool = False, knowledge: KnowledgeBias | None = None) -> CausalAttention:
    made = CausalAttention(WIDTH, HEADS, qk_norm, knowledge).double()
    made.start(torch.Generator().manual_seed(1), 1.0)
    return made


def inputs(batch: int = 2, tokens: int = 11) -> Tensor:
    return torch.randn(batch, tokens, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def written_out(made: CausalAttention, x: Tensor, position_BT: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    q, k, v = (part.unflatten(-1, (3, 8)).transpose(1, 2) for part in made.qkv(x).chunk(3, -1))
    q, k = made.query_norm(q), made.key_norm(k)
    turns = rotary_turns(position_BT, 8, x)
    scores = (rotate(q, turns) @ rotate(k, turns).transpose(-1, -2) + bias) / math.sqrt(8)
    for row, position_T in enumerate(position_BT.tolist()):
        for t, place in enumerate(position_T):
            hidden = [s for s in range(len(position_T)) if not t - place <= s <= t]
            scores[row, :, t, hidden] = -torch.inf
    return made.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_attention_is_the_masked_softmax_of_rotated_products(qk_norm: bool) -> None:
    made, x = attention(qk_norm), inputs()
    ours = made(x, Frame(position_BT=POSITIONS, is_one_document=False))
    torch.testing.assert_close(ours, written_out(made, x, POSITIONS), rtol=1e-12, atol=1e-12)
    whole = made(x, one_document(2, 11))
    torch.testing.assert_close(whole, written_out(made, x, POSITIONS[:1].expand(2, -1)), rtol=1e-12, atol=1e-12)


def test_the_knowledge_bias_is_added_to_the_products_and_starts_at_nothing() -> None:
    knowledge = KnowledgeBias(HEADS, rank=4, sizes=SIZES)
    made, x = attention(knowledge=knowledge), inputs()
    features = torch.stack([torch.arange(22).view(2, 11) % size for size in SIZES], -1)
    frame = Frame(position_BT=POSITIONS, is_one_document=False, knowledge_BTF=features)
    plain = attention()
    plain.load_state_dict(made.state_dict(), strict=False)
    torch.testing.assert_close(made(x, frame), plain(x, frame), rtol=0, atol=1e-14)
    knowledge.to_key.weight.data.normal_(generator=torch.Generator().manual_seed(3))
    query, key = knowledge(features)
    expected = written_out(made, x, POSITIONS, query @ key.transpose(-1, -2))
    torch.testing.assert_close(made(x, frame), expected, rtol=1e-12, atol=1e-12)
    assert (made(x, frame) - plain(x, frame)).abs().max() > 1e-3


def test_a_knowledge_bias_without_features_is_refused() -> None:
    made = attention(knowledge=KnowledgeBias(HEADS))
    with pytest.raises(ValueError, match="wanted features of the tokens for the knowledge bias, found none"):
        made(inputs(), one_document(2, 11))


def test_qk_norm_makes_the_scale_of_queries_and_keys_of_no_matter() -> None:
    made, x, frame = attention(qk_norm=True), inputs(), one_document(2, 11)
    before = made(x, frame)
    made.qkv.weight.data[: 2 * WIDTH] *= 50
    torch.testing.assert_close(made(x, frame), before, rtol=1e-5, atol=1e-6)


def test_the_cache_doubles_and_forgets_nothing() -> None:
    made, x = attention(), inputs(2, 40)
    _, state = made.prefill(x[:, :3], one_document(2, 3))
    slots = set()
    for place in range(3, 40):
        out, state = made.step(x[:, place], torch.tensor([place, place]), state)
        slots.add(state.key_BHSC.shape[2])
    assert slots == {4, 8, 16, 32, 64}
    torch.testing.assert_close(out, made(x, one_document(2, 40))[:, -1], rtol=0, atol=1e-10)


def test_rows_may_stand_at_different_places() -> None:
    made, x = attention(), inputs(2, 9)
    frame = Frame(position_BT=torch.tensor([[*range(9)], [*range(5), *range(4)]]), is_one_document=False)
    expected = made(x, frame)
    _, state = made.prefill(x[:, :4], replace(frame, position_BT=frame.position_BT[:, :4]))
    for t in range(4, 9):
        out, state = made.step(x[:, t], frame.position_BT[:, t], state)
        torch.testing.assert_close(out, expected[:, t], rtol=0, atol=1e-10)
