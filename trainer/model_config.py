"""What a network is made of: the model part of a recipe, with every component of docs/model.md and its switches.

The classes say what each value means and which are allowed. No torch here: the command line reads recipes on machines
that cannot train.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from .errors import Problem, RecipeInvalid
from .fields import Range, check_ranges

Count = Annotated[int, Range(least=1)]
Positive = Annotated[float, Range(above=0.0)]
Decay = Annotated[float, Range(least=0.0, below=1.0)]
Mixer = Literal["softmax", "ada", "multires", "kalman"]
Channel = Literal["mlp", "kan", "grove", "grove-kan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaConfig:
    """Arnold diffusion attention, the mixer `ada`."""

    window: Annotated[int, Range(least=1, most=64)] = 4
    """Taps of the diffusion of keys: how many tokens, the current one included, a key is spread over."""
    decay: Literal["fixed", "data"] = "fixed"
    """How fast the state forgets: a rate of each head, or one that each token chooses."""
    chunk: Annotated[int, Range(least=1, most=1024)] = 64
    """Tokens computed at once between two states; changes time and memory, not values."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiresConfig:
    """Multi-resolution attention, the mixer `multires`."""

    window: Count = 32
    """The newest tokens that are seen one by one; near the root of the context it costs the least."""
    levels: tuple[Annotated[int, Range(least=2)], ...] = (16,)
    """Tokens in a block of each coarser level; older blocks are seen by their mean."""
    fuse: Literal["softmax", "sum"] = "softmax"
    """One softmax over all resolutions, or one for each, summed."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroveConfig:
    """KalmaGrove, the channel mixers `grove` and `grove-kan`."""

    experts: Annotated[int, Range(least=1, most=1024)] = 16
    """Subnets, each of `hidden` channels."""
    active: Count = 2
    """Subnets that each token goes through. With one alone its share is always 1, and selectors do not learn."""
    selector_rank: Annotated[int, Range(least=1, most=64)] = 8
    """Rows of each subnet's selector."""
    balance_rate: Decay = 1e-3
    """By how much an idle subnet's offset rises, and a busy one's falls, after each step."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.active > self.experts:
            text = f"wanted at most experts = {self.experts}, found {self.active}"
            raise RecipeInvalid("GroveConfig", [Problem(key="active", text=text)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network. `width % heads` must be 0 and `width / heads` even, because rotary positions turn pairs."""

    layers: Count
    """Blocks, each one token mixer and one channel mixer."""
    width: Count
    """Channels of the residual stream."""
    heads: Count
    context_tokens: Annotated[int, Range(least=2)]
    """Tokens (bytes) of one training sequence; generation never looks back further."""
    hidden: Count
    """Channels inside a channel mixer; in a grove, inside each subnet."""
    mixers: tuple[Mixer, ...] = ("ada", "ada", "ada", "softmax")
    """Token mixers of the layers, repeated until all have one."""
    channel: Channel = "kan"
    """Channel mixer of all layers: gated linear pair, pair of edge layers, or groves of either."""
    grid_cells: Count = 5
    """Cells G of each spline's grid; an edge holds G + 3 spline coefficients and one SiLU weight."""
    grid_limit: Positive = 3.0
    """The grid spans [-limit, limit]; inputs are normalised to a root mean square of 1 first."""
    edge_form: Literal["dense", "cell"] = "cell"
    """How the bases are evaluated: all of them, or the four live ones. The values are the same; cell is quicker."""
    vocab_size: Annotated[int, Range(least=257, most=65536)] = 257
    """256 bytes and the end-of-document mark; more only pads the embedding."""
    qk_norm: bool = False
    """Normalise queries and keys of each softmax head."""
    knowledge: bool = False
    """Give softmax layers what a lexer knows of the text so far, as a bias of their scores."""
    isolate_documents: bool = True
    """Nothing of an earlier document in the same sequence is seen; off is quicker where a sequence holds one."""
    dropout: Decay = 0.0
    """Share of activations set to zero in training, behind the embedding and behind each mixer."""
    factor_rank: Annotated[int, Range(least=0)] = 0
    """Rank of the factors that all channel mixers share; 0: each has weights of its own."""
    group_order: Count = 1
    """Order of the cyclic group under which channel mixers are equivariant; 1: none."""
    reversible: bool = False
    """Two streams whose activations are computed again in the backward pass: memory flat in depth."""
    ada: AdaConfig = field(default_factory=AdaConfig)
    multires: MultiresConfig = field(default_factory=MultiresConfig)
    grove: GroveConfig = field(default_factory=GroveConfig)

    def __post_init__(self) -> None:
        check_ranges(self)
        problems = list(self._contradictions())
        if problems:
            raise RecipeInvalid("ModelConfig", problems)

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def layer_mixers(self) -> tuple[Mixer, ...]:
        """The token mixer of each layer."""
        return tuple(self.mixers[layer % len(self.mixers)] for layer in range(self.layers))

    def _contradictions(self) -> Iterator[Problem]:
        if self.width % self.heads:
            yield Problem(key="heads", text=f"wanted a divisor of width {self.width}, found {self.heads}")
        elif self.head_size % 2:
            text = f"wanted an even width / heads for rotary positions, found {self.width} / {self.heads}"
            yield Problem(key="heads", text=text)
        if self.knowledge and "softmax" not in self.layer_mixers:
            text = f"wanted a softmax layer, whose scores it biases, found {', '.join(self.layer_mixers)}"
            yield Problem(key="knowledge", text=text)
        is_grove = self.channel in {"grove", "grove-kan"}
        if self.factor_rank and is_grove:
            yield Problem(key="factor_rank", text=f"wanted the channel mlp or kan, found {self.channel}")
        # A factor's columns are orthonormal at the start, and no more of them fit.
        if self.factor_rank > min(self.width, self.hidden):
            text = f"wanted at most the lesser of width {self.width} and hidden {self.hidden}, found {self.factor_rank}"
            yield Problem(key="factor_rank", text=text)
        if is_grove and self.grove.selector_rank > self.width:
            text = f"wanted at most width = {self.width}, found {self.grove.selector_rank}"
            yield Problem(key="grove.selector_rank", text=text)
        if self.group_order > 1 and (is_grove or self.factor_rank):
            found = self.channel if is_grove else f"factor_rank = {self.factor_rank}"
            yield Problem(key="group_order", text=f"wanted the channel mlp or kan without factors, found {found}")
        if self.width % self.group_order or self.hidden % self.group_order:
            text = f"wanted a divisor of width {self.width} and hidden {self.hidden}, found {self.group_order}"
            yield Problem(key="group_order", text=text)
        if self.reversible and self.dropout:
            text = f"wanted 0 in a reversible network, which computes activations twice, found {self.dropout}"
            yield Problem(key="dropout", text=text)
