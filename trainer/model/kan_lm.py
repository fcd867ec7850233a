"""KanLM, the whole network: embedding, blocks, final norm, and the embedding again as the output layer.

Letters: B batch, T tokens, D width, V vocabulary. Token ids 0 to 255 are bytes, END_OF_DOCUMENT follows each document.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model_config import ModelConfig
from .arnold import ReversibleStack, cat_map_order
from .block import Block
from .edge import NORM_EPSILON
from .factors import SharedFactors
from .frame import Frame, frame_of, one_document
from .layers import make_block, make_factors
from .lexer import lex_batch

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
            self.factors = make_factors(config)
            blocks = [make_block(config, kind, self.factors) for kind in config.layer_mixers]
            order = cat_map_order(config.width)
            self.blocks = ReversibleStack(blocks, order) if config.reversible else nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)
        self._start(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _start(self, generator: torch.Generator) -> None:
        """Draw all start values on the CPU, so that they do not depend on the device trained on."""
        self.embedding.weight.normal_(0, EMBEDDING_SD, generator=generator)
        for shared in self.factors.values():
            assert isinstance(shared, SharedFactors)
            shared.start(generator)
        # 2L projections write to the residual stream; together they add a variance of one.
        output_scale = (2 * self.config.layers) ** -0.5
        for block in self.each_block():
            block.start(generator, output_scale)

    def each_block(self) -> Iterator[Block]:
        """The blocks, first to last."""
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block

    def shared_factor_layers(self) -> dict[str, int]:
        """Names of the parameters that layers share, and how many layers share each."""
        names = [name for name, _ in self.named_parameters() if name.startswith("factors.")]
        return dict.fromkeys(names, self.config.layers)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of each next token, (B, T, V), in the weights' dtype.

        Args:
            tokens_BT: int64 token ids below vocab_size; 1 <= T <= context_tokens.
        """
        return self.logits(self._after_blocks(tokens_BT))

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """What the output layer reads, (B, T, D), of a root mean square near 1, in the weights' dtype.

        Nothing of a later token is in it, so what follows a text in its row, padding too, does not change it.

        Args:
            tokens_BT: as for forward.
        """
        return self._final(self._after_blocks(tokens_BT))

    def _after_blocks(self, tokens_BT: Tensor) -> tuple[Tensor, ...]:
        frame = self.frame(tokens_BT)
        streams = self.streams(tokens_BT)
        if isinstance(self.blocks, ReversibleStack):
            both: tuple[Tensor, ...] = self.blocks(*streams, frame, [*self.factors.parameters()])
            return both
        for block in self.each_block():
            streams = (block(*streams, frame),)
        return streams

    def streams(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """What the blocks work on: the embedded tokens (..., D), or two copies of them in float32 at least."""
        x: Tensor = self.embedding(tokens)
        if isinstance(self.blocks, ReversibleStack):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            return wide, wide
        return (F.dropout(x, self.config.dropout, self.training) if self.config.dropout else x,)

    @property
    def is_reversible(self) -> bool:
        """Whether blocks work on two streams."""
        return isinstance(self.blocks, ReversibleStack)

    def through(
        self, block: Block, streams: tuple[Tensor, ...], mix_tokens: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, ...]:
        """The streams after one block whose token mixer adds what `mix_tokens` gives: forward, one block at a time."""
        if isinstance(self.blocks, ReversibleStack):
            x1, x2 = streams
            return self.blocks.couple(block, x1, x2, mix_tokens)
        (x,) = streams
        x = x + mix_tokens(x)
        return (x + block.mix_channels(x),)

    def logits(self, streams: tuple[Tensor, ...]) -> Tensor:
        """(..., V) of the streams (..., D) after the last block."""
        return F.linear(self._final(streams), self.embedding.weight)

    def _final(self, streams: tuple[Tensor, ...]) -> Tensor:
        x = streams[0]
        if isinstance(self.blocks, ReversibleStack):
            x = self.blocks.at_home(streams[0] + streams[1])
        out: Tensor = self.norm(x.to(self.embedding.weight.dtype))
        return out

    def frame(self, tokens_BT: Tensor) -> Frame:
        """Where the tokens stand, and what is known of them. Raises ValueError beyond the context."""
        batch, tokens = tokens_BT.shape
        if tokens > self.config.context_tokens:
            raise ValueError(f"wanted at most {self.config.context_tokens} tokens, found {tokens}")
        if self.config.isolate_documents:
            frame = frame_of(tokens_BT, END_OF_DOCUMENT)
        else:
            frame = one_document(batch, tokens, tokens_BT.device)
        if not self.config.knowledge:
            return frame
        return Frame(
            position_BT=frame.position_BT,
            is_one_document=frame.is_one_document,
            knowledge_BTF=lex_batch(tokens_BT, frame.position_BT),
        )
