"""Decoding's benchmark: one row, one token at a time after a long text, ours beside a GPT of equal total parameters.

The GPT has a cache of keys and values, and every way runs the same steps as CUDA graphs. Weights are random: what is
timed does not depend on them. Letters: L layers, D width.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..cost import model_cost
from ..model import KanLM
from ..model.decoding import DecodeState, prefill
from ..model.graphed import GraphedSteps, Steps, can_be_graphed, tensors_of
from ..model_config import ModelConfig
from .group import Group, relative_error, require_right
from .timing import measure
from .variants import fit_hidden

# Steps that are timed at most, a warm-up among them: there is room for so many in every cache.
STEPS = 256
# A short text for four layers of the same widths: float64 of the whole would not fit.
CHECKED_LAYERS, CHECKED_TOKENS, CHECKED_STEPS = 4, 200, 40
# Each layer's two mixers round what they take and what they give.
OPS_A_LAYER = 4
# Of an edge's weights: four bases and SiLU.
LIVE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A GPT's size, and how much text lies before the tokens that are timed."""

    layers: int
    width: int
    heads: int
    hidden: int
    tokens: int

    @property
    def name(self) -> str:
        """As tables call it."""
        return f"{self.layers} layers of {self.width}, {self.tokens:,} tokens before"


# Hidden widths for which the groves' are multiples of 16, whose loads are wide.
CASES = [
    Case(layers=32, width=4096, heads=32, hidden=10752, tokens=32768),
    Case(layers=24, width=2048, heads=16, hidden=6144, tokens=32768),
]
CPU_CASES = [Case(layers=4, width=128, heads=4, hidden=384, tokens=4096)]
OURS = ("ada", "ada", "ada", "softmax")
WAYS: dict[str, dict[str, Any]] = {
    "GPT": {"channel": "mlp", "mixers": ("softmax",), "qk_norm": True},
    "ours": {"channel": "grove-kan", "mixers": OURS},
    "ours, ada alone": {"channel": "grove-kan", "mixers": ("ada",)},
    "groves of edges, softmax alone": {"channel": "grove-kan", "mixers": ("softmax",), "qk_norm": True},
    "gated pairs, ada and softmax": {"channel": "mlp", "mixers": OURS},
}


def names(device: str) -> list[str]:
    """The ways, the baseline first."""
    return list(WAYS)


def config_of(case: Case, name: str) -> ModelConfig:
    """A way's model, of as many parameters in all as the GPT's."""
    context = case.tokens + 2 * STEPS
    plain = ModelConfig(
        layers=case.layers, width=case.width, heads=case.heads, hidden=case.hidden, context_tokens=context,
        isolate_documents=False,
    )  # fmt: skip
    gpt = replace(plain, **WAYS["GPT"])
    return gpt if name == "GPT" else fit_hidden(replace(plain, **WAYS[name]), model_cost(gpt).parameters)


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way. Raises RuntimeError where steps give other logits than whole passes do, or ask the host."""
    if case.tokens <= STEPS:
        raise RuntimeError(f"wanted more than {STEPS} tokens before, found {case.tokens}")
    config = config_of(case, name)
    checked = CHECKED_TOKENS + CHECKED_STEPS
    small = replace(config, layers=min(CHECKED_LAYERS, config.layers), context_tokens=checked)
    errors = {}
    # In the narrow dtype last: its errors are the row's.
    for each in dict.fromkeys((torch.float32, dtype)):
        errors = check(small, device, each)
        require_right(errors, each, ops=OPS_A_LAYER * CHECKED_LAYERS)
    model = random_model(config, device, dtype)
    generator = torch.Generator(device).manual_seed(2)
    # The caches' sizes are powers of two: this fills the lower one but for the steps.
    tokens_BT = torch.randint(256, (1, case.tokens - STEPS), generator=generator, device=device)
    _, state = prefill(model, tokens_BT)
    read_mb = _read_mb(config, state, dtype)
    one_step, token_B = _steps(model, state, device), tokens_BT[:, -1]
    took = measure(lambda: one_step(token_B))
    cost = model_cost(config)
    return {
        "forward_ms": took.ms,
        "both_ms": None,
        "extra_mb": None,
        "errors": errors,
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        "read_mb": read_mb,
    }


def random_model(config: ModelConfig, device: str, dtype: torch.dtype) -> KanLM:
    """A model whose weights are drawn where they stay: drawing billions on a CPU takes minutes."""
    with torch.device("meta"):
        model = KanLM(config, seed=0)
    model = model.to(dtype).to_empty(device=device).eval()
    generator = torch.Generator(device).manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            # Gains and biases are of one; matrices keep the size of what goes through them, about.
            spread = 0.0 if weight.dim() < 2 else float(weight.shape[-1]) ** -0.5
            weight.normal_(1.0 if spread == 0.0 else 0.0, spread, generator=generator)
        for buffer in model.buffers():
            buffer.zero_()
    return model


def check(config: ModelConfig, device: str, dtype: torch.dtype) -> dict[str, float]:
    """How far the logits of steps are from those of whole passes in float64, over a short text.

    In float32 over all steps together. In narrow numbers the median step: where two subnets score alike, rounding
    decides which a token takes, and its logits are another function's.
    """
    model = random_model(config, device, dtype)
    generator = torch.Generator(device).manual_seed(3)
    tokens_BT = torch.randint(256, (1, CHECKED_TOKENS + CHECKED_STEPS), generator=generator, device=device)
    _, state = prefill(model, tokens_BT[:, :CHECKED_TOKENS])
    one_step = _steps(model, state, device)
    found = [one_step(tokens_BT[:, place]).clone() for place in range(CHECKED_TOKENS, tokens_BT.shape[1])]
    with torch.inference_mode():
        wanted_BTV = model.double()(tokens_BT)[:, CHECKED_TOKENS:]
    if dtype == torch.float32:
        return {"logits": relative_error(torch.stack(found, 1), wanted_BTV)}
    each = [relative_error(one, wanted_BTV[:, step]) for step, one in enumerate(found)]
    return {"logits": median(each)}


def _steps(model: KanLM, state: DecodeState, device: str) -> Steps | GraphedSteps:
    if device == "cpu":
        return Steps(model, state)
    if not can_be_graphed(model, 1):
        raise RuntimeError("wanted steps that a CUDA graph can record, found a model that asks the host")
    return GraphedSteps(model, state)


def _read_mb(config: ModelConfig, state: DecodeState, dtype: torch.dtype) -> float:
    """Megabytes that a step has to read: the weights that are live for one token, and the states."""
    cost, grove = model_cost(config), config.grove
    share = grove.active / grove.experts if config.channel == "grove-kan" else 1.0
    idle = cost.edge_parameters * share * (1 - LIVE / (config.grid_cells + 4))
    weights = (cost.active_parameters - idle) * dtype.itemsize
    return (weights + sum(_sizes(tensors_of(state)))) / 1e6


def _sizes(tensors: Iterable[Tensor]) -> Iterable[int]:
    return (tensor.numel() * tensor.element_size() for tensor in tensors)


GROUP = Group(
    name="decode",
    title="one more token after a long text, beside a GPT of equal total parameters with a cache",
    cases=CASES,
    cpu_cases=CPU_CASES,
    ways=names,
    run=run_way,
)
