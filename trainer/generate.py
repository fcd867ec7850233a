"""Writing bytes with a model, for several prompts at once. Loading the model and showing the text is sample.py's.

Letters: B prompts, T tokens so far, V vocabulary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .errors import CheckpointInvalid
from .model import END_OF_DOCUMENT, KanLM
from .model.decoding import prefill
from .model.graphed import GraphedSteps, Steps, can_be_graphed

Ended = Literal["length", "end-of-document", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How the next byte is chosen, and when writing ends."""

    tokens: int = 200
    """At most so many bytes are written; the end of the document or a stop may come first."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest byte every time."""
    top_k: int = 0
    """Only the k likeliest bytes can be drawn; 0 means all."""
    top_p: float = 1.0
    """Only the fewest bytes whose probabilities, at this temperature, add up to p can be drawn; 1 means all."""
    stops: tuple[bytes, ...] = ()
    """Writing ends before the first of these."""
    seed: int = 0
    """The first prompt's; each further one has the next number, so it writes what it would write alone."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.top_k < 0 or not 0 <= self.temperature < math.inf:
            raise ValueError(f"wanted tokens >= 1, top_k >= 0 and a finite temperature >= 0, found {self}")
        if not 0 < self.top_p <= 1 or not all(self.stops):
            raise ValueError(f"wanted 0 < top_p <= 1 and stops of at least one byte, found {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one prompt was continued with, without the prompt and without what stopped it."""

    text: bytes
    ended: Ended


@dataclass(slots=True, kw_only=True)
class _Row:
    """One prompt while it is continued."""

    tokens: list[int]
    generator: torch.Generator
    written: bytearray = field(default_factory=bytearray)
    ended: Ended | None = None

    def take(self, token: int, config: SampleConfig) -> None:
        """One more token; after the end, only so that all rows stay equally long."""
        self.tokens.append(token)
        if self.ended is not None:
            return
        if token == END_OF_DOCUMENT:
            self.ended = "end-of-document"
            return
        self.written.append(token)
        found = [stop for stop in config.stops if self.written.endswith(stop)]
        if found:
            del self.written[-max(map(len, found)) :]
            self.ended = "stop"
        elif len(self.written) == config.tokens:
            self.ended = "length"


def generate(model: KanLM, prompts: Sequence[bytes], config: SampleConfig) -> list[Written]:
    """What the model writes after each prompt, as a document's first bytes, up to its end or `config.tokens` bytes.

    The model sees an end-of-document mark, as before each document of the corpus, the prompt, and what it wrote: at
    least half of its context back. The same model, prompt and config give the same bytes on one kind of device.
    Raises CheckpointInvalid when the model's logits are not numbers.
    """
    longest = max(map(len, prompts), default=0)
    rows = [
        # Shorter prompts begin with more marks, across which nothing is seen.
        _Row(
            tokens=[*[END_OF_DOCUMENT] * (longest - len(prompt) + 1), *prompt],
            generator=torch.Generator().manual_seed(config.seed + number),
        )
        for number, prompt in enumerate(prompts)
    ]
    model.eval()
    one_step: Steps | GraphedSteps | None = None
    seen = model.config.context_tokens
    while any(row.ended is None for row in rows):
        if one_step is None or seen >= model.config.context_tokens:
            window_BT = _window(rows, model)
            logits_BV, state = prefill(model, window_BT)
            one_step = GraphedSteps(model, state) if can_be_graphed(model, len(rows)) else Steps(model, state)
            seen = window_BT.shape[1]
        else:
            token_B = torch.tensor([row.tokens[-1] for row in rows], device=model.embedding.weight.device)
            logits_BV = one_step(token_B)
            seen += 1
        _choose_all(rows, logits_BV[:, : END_OF_DOCUMENT + 1].float().cpu(), config)
    return [Written(text=bytes(row.written), ended=row.ended) for row in rows if row.ended is not None]


def _window(rows: Sequence[_Row], model: KanLM) -> Tensor:
    """The tokens to begin with, (B, T): all of them while they fit, else as many as leave half of the context free."""
    context = model.config.context_tokens
    length = len(rows[0].tokens)
    last = length if length < context else max(1, context // 2)
    return torch.tensor([row.tokens[-last:] for row in rows], device=model.embedding.weight.device)


def _choose_all(rows: Sequence[_Row], logits_BV: Tensor, config: SampleConfig) -> None:
    for row, logits_V in zip(rows, logits_BV, strict=True):
        token = END_OF_DOCUMENT if row.ended is not None else choose(logits_V, config, row.generator)
        row.take(token, config)


def choose(logits_V: Tensor, config: SampleConfig, generator: torch.Generator) -> int:
    """One token drawn from float32 logits on the CPU. Raises CheckpointInvalid for logits that are not numbers."""
    if not logits_V.isfinite().all():
        raise CheckpointInvalid("the model's output is not a number: its training went wrong", "evaluate a checkpoint")
    if config.temperature == 0:
        return int(logits_V.argmax())
    if 0 < config.top_k < len(logits_V):
        least = logits_V.topk(config.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -math.inf)
    # The largest logit is taken off first: a tiny temperature must not overflow.
    shares_V = torch.softmax((logits_V - logits_V.max()) / config.temperature, 0)
    if config.top_p < 1:
        shares_V = _nucleus(shares_V, config.top_p)
    return int(torch.multinomial(shares_V, 1, generator=generator))


def _nucleus(shares_V: Tensor, top_p: float) -> Tensor:
    """Shares with all but the likeliest set to 0: those before which less than p has been reached. arXiv 1904.09751."""
    sorted_V, order_V = shares_V.sort(descending=True)
    kept_V = sorted_V.cumsum(0) - sorted_V < top_p
    return torch.zeros_like(shares_V).scatter(0, order_V, sorted_V * kept_V)
