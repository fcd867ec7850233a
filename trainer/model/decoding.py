"""One token after the other with what the layers keep of those before: the same logits as the whole forward pass.

Letters: B rows, T tokens of the prompts, V vocabulary, F features of the lexer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .kan_lm import END_OF_DOCUMENT, KanLM
from .lexer import PrefixLexer
from .rotary import Turns, rotary_turns


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeState:
    """What is kept of the tokens so far."""

    layers: tuple[Any, ...]
    """The state of each block's token mixer."""
    position_B: Tensor
    """int64, the next token's place in its document."""
    lexers: tuple[PrefixLexer, ...]
    """Each row's lexer, where the model knows a bias by it; else none."""


@torch.inference_mode()
def prefill(model: KanLM, tokens_BT: Tensor) -> tuple[Tensor, DecodeState]:
    """Logits (B, V) of the token after each row, and the state to go on from.

    Args:
        tokens_BT: int64 token ids; 1 <= T <= context_tokens. Prompts of unequal length begin with as many
            END_OF_DOCUMENT as make them equal: nothing is seen across a mark, so they change nothing.
    """
    frame = model.frame(tokens_BT)
    streams = model.streams(tokens_BT)
    states: list[Any] = []
    for block in model.each_block():
        streams = model.through(block, streams, _keeping(states, partial(block.prefill, frame=frame)))
    lexers = tuple(_lexer_of(row, model) for row in tokens_BT.tolist()) if model.config.knowledge else ()
    after_B = _place_after(frame.position_BT[:, -1], tokens_BT[:, -1], model)
    last = tuple(stream[:, -1] for stream in streams)
    return model.logits(last), DecodeState(layers=tuple(states), position_B=after_B, lexers=lexers)


@torch.inference_mode()
def step(model: KanLM, token_B: Tensor, state: DecodeState) -> tuple[Tensor, DecodeState]:
    """Logits (B, V) of the token after `token_B`, and the next state. The state given is used up.

    Args:
        token_B: int64, one more token of each row.
    """
    streams = model.streams(token_B)
    features_BF, lexers = _read(token_B, state.lexers, model)
    turns = _turns(model, state.position_B)
    states: list[Any] = []
    for block, before in zip(model.each_block(), state.layers, strict=True):
        given = {"position_B": state.position_B, "state": before, "knowledge_BF": features_BF}
        if model.is_reversible:
            streams = model.through(block, streams, _keeping(states, partial(block.step, **given)))
        else:
            (x_BD,) = streams
            x_BD, after = block.step_through(x_BD, turns=turns, **given)
            streams = (x_BD,)
            states.append(after)
    after_B = _place_after(state.position_B, token_B, model)
    return model.logits(streams), DecodeState(layers=tuple(states), position_B=after_B, lexers=lexers)


def _turns(model: KanLM, position_B: Tensor) -> Turns | None:
    """How far the places turn queries and keys, for all layers of softmax attention."""
    if "softmax" not in model.config.layer_mixers:
        return None
    return rotary_turns(position_B, model.config.width // model.config.heads, model.embedding.weight)


def _keeping(states: list[Any], mix: Callable[[Tensor], tuple[Tensor, Any]]) -> Callable[[Tensor], Tensor]:
    """A token mixer that puts its state aside."""

    def mixed(x: Tensor) -> Tensor:
        added, state = mix(x)
        states.append(state)
        return added

    return mixed


def _place_after(position_B: Tensor, token_B: Tensor, model: KanLM) -> Tensor:
    if not model.config.isolate_documents:
        return position_B + 1
    return torch.where(token_B == END_OF_DOCUMENT, 0, position_B + 1)


def _read(
    token_B: Tensor, lexers: tuple[PrefixLexer, ...], model: KanLM
) -> tuple[Tensor | None, tuple[PrefixLexer, ...]]:
    """The tokens' features (B, F) and the lexers after them; None without lexers."""
    if not lexers:
        return None, ()
    tokens = token_B.tolist()
    rows = [lexer.feed(token) for lexer, token in zip(lexers, tokens, strict=True)]
    after = tuple(_after(lexer, token, model) for lexer, token in zip(lexers, tokens, strict=True))
    return torch.tensor(rows, device=token_B.device), after


def _lexer_of(tokens: list[int], model: KanLM) -> PrefixLexer:
    """A lexer that has read the last document of a row."""
    lexer = PrefixLexer()
    for token in tokens:
        lexer.feed(token)
        lexer = _after(lexer, token, model)
    return lexer


def _after(lexer: PrefixLexer, token: int, model: KanLM) -> PrefixLexer:
    """The lexer of the next token: a new one when the document has ended."""
    return PrefixLexer() if model.config.isolate_documents and token == END_OF_DOCUMENT else lexer
