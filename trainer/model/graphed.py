"""Decoding steps of one batch as CUDA graphs: the same numbers, without the host's work for each kernel.

A graph is recorded over a state whose tensors stay where they are: what a step makes anew is copied back into them.
Where a cache must grow, one ordinary step does it, and the next graph is recorded over the larger state.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .decoding import DecodeState, step
from .grove import Grove
from .kan_lm import KanLM

Run = Callable[[], object]
Capture = Callable[[Run, Run], Run]
"""From a run that warms up, and the one to record without running it, to its replay."""
# A recording costs as much as some tens of ordinary steps.
LEAST_STEPS = 32


def can_be_graphed(model: KanLM, rows: int) -> bool:
    """Whether a step of so many rows asks nothing of the host: a lexer does, and groves that run subnet by subnet."""
    if not model.embedding.weight.is_cuda or model.config.knowledge:
        return False
    return not any(module.asks_the_host(rows) for module in model.modules() if isinstance(module, Grove))


def on_gpu(warm_up: Run, run: Run) -> Run:
    """Record what `run` starts on the GPU, after a warm-up on the same kind of stream; gives its replay."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        # Kernels are compiled and libraries started before anything is recorded.
        warm_up()
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph):
        run()
    return graph.replay


class Steps:
    """Ordinary steps from a state on, which they use up."""

    def __init__(self, model: KanLM, state: DecodeState) -> None:
        self._model, self._state = model, state

    def __call__(self, token_B: Tensor) -> Tensor:
        """Logits (B, V) of the token after `token_B`."""
        logits_BV, self._state = step(self._model, token_B, self._state)
        return logits_BV


class GraphedSteps:
    """The same, recorded and replayed.

    Args:
        model: for which `can_be_graphed`.
        state: as prefill gave it.
        capture: records a function; on_gpu unless a test has no GPU.
    """

    def __init__(self, model: KanLM, state: DecodeState, capture: Capture = on_gpu) -> None:
        self._model, self._state, self._capture = model, state, capture
        self._token_B = torch.zeros_like(state.position_B)
        self._logits_BV: Tensor | None = None
        self._replay: Run | None = None
        self._replayed = 0

    def __call__(self, token_B: Tensor) -> Tensor:
        """Logits (B, V) of the token after `token_B`; the next call writes over them."""
        room = min((layer.room for layer in self._state.layers if hasattr(layer, "room")), default=1 << 62)
        if self._replay is None and room < LEAST_STEPS:
            logits_BV, self._state = step(self._model, token_B, self._state)
            return logits_BV
        self._token_B.copy_(token_B)
        if self._replay is None:
            # An ordinary step writes into states: into a place of a cache, which the replay writes again, or over what
            # does not grow, of which the warm-up has a copy.
            spare = copied(self._state)
            self._replay = self._capture(lambda: step(self._model, self._token_B, spare), self._step_in_place)
        self._replay()
        self._replayed += 1
        if self._replayed == room:
            self._state = advanced(self._state, self._replayed)
            self._replay, self._replayed = None, 0
        assert self._logits_BV is not None
        return self._logits_BV

    @torch.inference_mode()
    def _step_in_place(self) -> None:
        self._logits_BV, after = step(self._model, self._token_B, self._state)
        for tensor, value in zip(tensors_of(self._state), tensors_of(after), strict=True):
            if tensor.data_ptr() != value.data_ptr():
                tensor.copy_(value)


def tensors_of(state: Any) -> Iterator[Tensor]:
    """All tensors of a state, of its parts too, in one order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from tensors_of(part)
    elif is_dataclass(state):
        for field in fields(state):
            yield from tensors_of(getattr(state, field.name))


def copied(state: DecodeState) -> DecodeState:
    """The state with the layers' that do not grow in tensors of their own; caches are shared."""

    def copy(layer: Any) -> Any:
        if hasattr(layer, "most") or not is_dataclass(layer):
            return layer
        return replace(layer, **{field.name: getattr(layer, field.name).clone() for field in fields(layer)})  # type: ignore[type-var]

    return replace(state, layers=tuple(copy(layer) for layer in state.layers))


def advanced(state: DecodeState, steps: int) -> DecodeState:
    """The state with what is counted on the host brought up to the steps that were replayed."""

    def after(layer: Any) -> Any:
        if not hasattr(layer, "most"):
            return layer
        counted = {"most": layer.most + steps}
        if any(field.name == "room" for field in fields(layer)):
            counted["room"] = layer.room - steps
        return replace(layer, **counted)

    return replace(state, layers=tuple(after(layer) for layer in state.layers))
