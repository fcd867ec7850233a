"""Writing bytes with a model, one after the other. Loading the model and showing the text is sample.py's.

Letters: T tokens so far, V vocabulary.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import CheckpointInvalid
from .model import END_OF_DOCUMENT, KanLM


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How the next byte is chosen."""

    tokens: int = 200
    """At most so many bytes are written; the end of the document may come first."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest byte every time."""
    top_k: int = 0
    """Only the k likeliest bytes can be drawn; 0 means all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.top_k < 0 or not 0 <= self.temperature < math.inf:
            raise ValueError(f"wanted tokens >= 1, top_k >= 0 and a finite temperature >= 0, found {self}")


def generate(model: KanLM, prompt: bytes, config: SampleConfig) -> Iterator[int]:
    """The bytes (0 to 255) that the model writes after a document's first bytes, until its end or `config.tokens`.

    The model sees an end-of-document mark, as before each document of the corpus, the prompt, and what it wrote, as
    far back as its context reaches. The same model, prompt and config give the same bytes on one kind of device.
    Raises CheckpointInvalid when the model's logits are not numbers.
    """
    generator = torch.Generator().manual_seed(config.seed)
    device = model.embedding.weight.device
    tokens = [END_OF_DOCUMENT, *prompt]
    model.eval()
    for _ in range(config.tokens):
        window = torch.tensor([tokens[-model.config.context_tokens :]], device=device)
        # Not around the loop: a suspended generator would leave inference mode on for its caller.
        with torch.inference_mode():
            logits_V = model(window)[0, -1].float().cpu()
        token = choose(logits_V[: END_OF_DOCUMENT + 1], config, generator)
        if token == END_OF_DOCUMENT:
            return
        tokens.append(token)
        yield token


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
    return int(torch.multinomial(shares_V, 1, generator=generator))
