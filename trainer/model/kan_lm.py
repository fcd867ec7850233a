"""KanLM, the whole network: embedding, blocks, final norm, and the embedding again as the output layer.

Letters: B batch, T tokens, D width, V vocabulary. Token ids 0 to 255 are bytes, END_OF_DOCUMENT follows each document.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .block import Block
from .edge import NORM_EPSILON
from .frame import frame_of

END_OF_DOCUMENT = 256
EMBEDDING_SD = 0.02


class KanLM(nn.Module):
    """A causal byte-level language model. One config and seed give the same weights, bit for bit."""

    def __init__(self, config: ModelConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        # PyTorch's layers draw start values of their own, replaced below: the caller's generator must not notice.
        with torch.random.fork_rng(devices=[]):
            self.embedding = nn.Embedding(config.vocab_size, config.width)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)
        self._start(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        """Draw all start values on the CPU, so that they do not depend on the device trained on."""
        self.embedding.weight.normal_(0, EMBEDDING_SD, generator=generator)
        # 2L projections write to the residual stream; together they add a variance of one.
        output_scale = (2 * self.config.layers) ** -0.5
        for block in self.blocks:
            assert isinstance(block, Block)
            block.start(generator, output_scale)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of each next token, (B, T, V), in the weights' dtype.

        Args:
            tokens_BT: int64 token ids below vocab_size; 1 <= T <= context_tokens.
        """
        tokens = tokens_BT.shape[1]
        if tokens > self.config.context_tokens:
            raise ValueError(f"wanted at most {self.config.context_tokens} tokens, found {tokens}")
        x_BTD = self.embedding(tokens_BT)
        frame = frame_of(tokens_BT, END_OF_DOCUMENT)
        for block in self.blocks:
            x_BTD = block(x_BTD, frame)
        return F.linear(self.norm(x_BTD), self.embedding.weight)
