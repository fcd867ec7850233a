"""One training step of whole small models: a GPT, and the same with an edge layer in place of every linear layer.

The shapes are those of the published comparison on Shakespeare's characters: a GPT of 16 layers (7.2 M parameters)
beside an all-edge model of 2 (8.0 M; the published one, with a factor for each spline, 8.9 M). Forward, backward and a
fused AdamW, on a GPU in one CUDA graph.
Letters: B sequences, T tokens, D width, H heads, C head size, V words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.bspline import SplineGrid, edge_linear
from ..ops.bspline.reference import edge_linear_reference
from .edge_rivals import RIVALS
from .group import Group, Work, require_right
from .timing import measure

WIDTH, HEADS, LENGTH, WORDS = 192, 6, 256, 65
GRID = SplineGrid(cells=5)
Product = Callable[[Tensor, Tensor, SplineGrid], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How many tokens a step takes, in sequences of 256."""

    tokens: int

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{max(1, self.tokens // LENGTH)} x {LENGTH} characters"


class Edges(nn.Module):
    """An edge layer by any product; its input is scaled to a root mean square of one."""

    def __init__(self, inputs: int, outputs: int, product: Product) -> None:
        super().__init__()
        self.product = product
        self.weight_JIO = nn.Parameter(torch.randn(GRID.bases + 1, inputs, outputs) * (2 * inputs) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O)."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        normed = F.rms_norm(x, x.shape[-1:], eps=1e-6).flatten(0, -2).to(dtype)
        return self.product(normed, self.weight_JIO.to(dtype), GRID).view(*x.shape[:-1], -1)


class Block(nn.Module):
    """Causal attention and a feed-forward, of linear or edge layers."""

    def __init__(self, product: Product | None) -> None:
        super().__init__()

        def make(inputs: int, outputs: int) -> nn.Module:
            return nn.Linear(inputs, outputs, bias=False) if product is None else Edges(inputs, outputs, product)

        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.enter, self.leave = make(WIDTH, 3 * WIDTH), make(WIDTH, WIDTH)
        self.rise, self.fall = make(WIDTH, 4 * WIDTH), make(4 * WIDTH, WIDTH)
        self.has_edges = product is not None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        batch, tokens, _ = x_BTD.shape
        parts = self.enter(self.norms[0](x_BTD)).view(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q_BHTC, k_BHTC, v_BHTC = parts
        mixed_BHTC = F.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=True)
        x_BTD = x_BTD + self.leave(mixed_BHTC.transpose(1, 2).reshape(batch, tokens, WIDTH))
        inner = self.rise(self.norms[1](x_BTD))
        added: Tensor = self.fall(inner if self.has_edges else F.gelu(inner))
        return x_BTD + added


class CharacterModel(nn.Module):
    """Learned places, blocks, tied words."""

    def __init__(self, layers: int, product: Product | None) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        nn.init.normal_(self.words.weight, std=0.02)
        self.blocks = nn.Sequential(*(Block(product) for _ in range(layers)))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """The mean loss of the next character, in nats."""
        inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
        x_BTD = self.words(inputs_BT) + self.places.weight[: inputs_BT.shape[1]]
        logits_BTV = F.linear(self.norm(self.blocks(x_BTD)), self.words.weight)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())


MODELS: dict[str, tuple[int, Product | None]] = {
    "GPT, 16 layers": (16, None),
    "ours, 2 layers of edges": (2, edge_linear),
    **{f"{name}, 2 layers of edges": (2, rival) for name, rival in RIVALS.items()},
}


def names(device: str) -> list[str]:
    """The ways on a device, the baseline first."""
    return [*MODELS, *(f"{name}, compiled" for name in MODELS)] if device == "cuda" else list(MODELS)


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one model. Raises RuntimeError where ours has another loss than its reference."""
    plain = name.removesuffix(", compiled")
    layers, product = MODELS[plain]
    generator = torch.Generator(device).manual_seed(1)
    shape = (max(1, case.tokens // LENGTH), LENGTH + 1)
    tokens_BT = torch.randint(WORDS, shape, generator=generator, device=device)
    model = make_model(layers, product, device)
    errors = check(model, tokens_BT[:2], dtype) if plain.startswith("ours") else {}
    require_right(errors, dtype)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, capturable=device == "cuda")
    loss_of = torch.compile(model, dynamic=False) if name != plain else model

    def loss() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
            found: Tensor = loss_of(tokens_BT)
        return found

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    step()
    with torch.no_grad():
        forward = measure(loss, graph=True)
    both = measure(step, graph=True)
    return {"forward_ms": forward.ms, "both_ms": both.ms, "extra_mb": both.peak_mb, "errors": errors}


def make_model(layers: int, product: Product | None, device: str) -> CharacterModel:
    """The same start values each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return CharacterModel(layers, product).to(device)


@torch.no_grad()
def check(model: CharacterModel, tokens_BT: Tensor, dtype: torch.dtype) -> dict[str, float]:
    """How far the loss is from that of the reference's edges in float64, as a share of it."""
    with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = model(tokens_BT).double()
    exact = make_model(len(model.blocks), edge_linear_reference, tokens_BT.device.type).double()
    exact.load_state_dict(model.state_dict())
    wanted = exact(tokens_BT).double()
    return {"loss": float((found - wanted).abs() / wanted)}


def work(case: Case) -> Work:
    """The edge layers' products of two layers, as edge.work counts them."""
    weights = 2 * WIDTH * WIDTH * (3 + 1 + 4 + 4)
    product = 2.0 * case.tokens * weights
    return Work(forward_flops=5 * product, both_flops=(5 + 18) * product)


GROUP = Group(
    name="step",
    title="a training step of a character model, beside a GPT of as many parameters",
    cases=[Case(tokens=64 * LENGTH)],
    ways=names,
    work=work,
    run=run_way,
)
