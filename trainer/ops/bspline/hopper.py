"""The edge layer's three products on Hopper's tensor cores: CUDA kernels, built on first use, called as plain C.

Where they cannot be built or do not fit, one line says why, and another implementation runs.
Letters: N tokens, I inputs, O outputs, J = 9 features of an input, S parts of the tokens, E groups of tokens.
Where ends_E is given, rows of group e end before ends_E[e], and weights and their gradients are (E, J, I, O).
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cuda_build import build_library, without_compiler
from ..route import Machine

FOLDER = Path(__file__).parent
SOURCES = [FOLDER / f"kernel_{name}.cu" for name in ("forward", "input_gradient", "weight_gradient")]
HEADERS = [FOLDER / "edge.cuh", FOLDER / "hopper.cuh"]
# Only for this very architecture: the instructions are not part of any later one.
FLAGS = ["-O3", "-gencode=arch=compute_90a,code=sm_90a"]
HOPPER = (9, 0)
# The kernels' own sizes: bases of five cells and SiLU, inputs of one stage, outputs whose rows lie at 16 bytes.
FEATURES, INPUTS, OUTPUTS = 9, 16, 8
# Bytes.
ALIGNMENT = 16
# A weight gradient's tile: inputs whose bases a block has, inputs of which it has SiLU, and outputs.
SPLINE_INPUTS, SILU_INPUTS, TILE_OUTPUTS = 16, 128, 256
# What a part costs beside its share of the tokens, in tokens of a tile: its sums are written and read in float32.
PART_TOKENS_PER_VALUE = 3e-4
MOST_PARTS = 8


class Functions(NamedTuple):
    """The kernels' C functions."""

    forward: Any
    input_gradient: Any
    weight_gradient: Any


def misfit(capability: tuple[int, int] | None, features: int, inputs: int, outputs: int, dtype: str) -> str | None:
    """Why the kernels do not serve such a layer on such a GPU; None where they do."""
    if capability != HOPPER:
        return "its instructions are Hopper's alone"
    if features != FEATURES:
        return f"it is for five cells, found {features - 4}"
    if dtype != "bfloat16":
        return f"it is for bfloat16, found {dtype}"
    if inputs % INPUTS or outputs % OUTPUTS:
        return f"wanted inputs a multiple of {INPUTS} and outputs of {OUTPUTS}, found {inputs} and {outputs}"
    return None


def unbuilt_here(machine: Machine, features: int, inputs: int, outputs: int, dtype: str) -> str | None:
    """Why the kernels cannot be built for a layer that they would serve; None where they can, or would not anyway."""
    if misfit(machine.capability, features, inputs, outputs, dtype) is not None:
        return None
    return unbuilt()


@cache
def unbuilt() -> str | None:
    """Why the kernels cannot be built here; None when they are. The first call builds them, in half a minute."""
    return _build()[1]


def forward(x_NI: Tensor, weight_JIO: Tensor, limit: float, ends_E: Tensor | None = None) -> Tensor:
    """The layer's outputs (N, O), for sizes without a misfit, where nothing is unbuilt.

    This and the others raise RuntimeError with CUDA's error code when a launch fails.
    """
    x_NI, weight_JIO = _aligned(x_NI), _aligned(weight_JIO)
    (tokens, inputs), outputs = x_NI.shape, weight_JIO.shape[-1]
    y_NO = x_NI.new_empty((tokens, outputs))
    if y_NO.numel():
        places = (*_places(x_NI, weight_JIO, y_NO, ends_E), _groups(ends_E))
        _call("forward", x_NI, *places, tokens, inputs, outputs, limit)
    return y_NO


def input_gradient(
    x_NI: Tensor, weight_JIO: Tensor, grad_NO: Tensor, limit: float, ends_E: Tensor | None = None
) -> Tensor:
    """The gradient of the inputs (N, I)."""
    x_NI, weight_JIO, grad_NO = _aligned(x_NI), _aligned(weight_JIO), _aligned(grad_NO)
    (tokens, inputs), outputs = x_NI.shape, weight_JIO.shape[-1]
    out_NI = torch.empty_like(x_NI)
    if out_NI.numel():
        places = (*_places(x_NI, weight_JIO, grad_NO, out_NI, ends_E), _groups(ends_E))
        _call("input_gradient", x_NI, *places, tokens, inputs, outputs, limit)
    return out_NI


def weight_gradient(x_NI: Tensor, grad_NO: Tensor, limit: float, ends_E: Tensor | None = None) -> Tensor:
    """The gradient of the weight. Few tiles of one weight are cut into parts of the tokens, summed in a fixed order."""
    x_NI, grad_NO = _aligned(x_NI), _aligned(grad_NO)
    (tokens, inputs), outputs = x_NI.shape, grad_NO.shape[1]
    shape = (FEATURES, inputs, outputs) if ends_E is None else (len(ends_E), FEATURES, inputs, outputs)
    if not tokens:
        return x_NI.new_zeros(shape)
    out_JIO = x_NI.new_empty(shape)
    parts = _parts(tokens, inputs, outputs, _multiprocessors(x_NI.device)) if ends_E is None else len(ends_E)
    room = x_NI.new_empty((parts, *shape), dtype=torch.float32) if ends_E is None and parts > 1 else None
    if out_JIO.numel():
        places = (*_places(x_NI, grad_NO, out_JIO, room, ends_E), _groups(ends_E))
        _call("weight_gradient", x_NI, *places, parts, tokens, inputs, outputs, limit)
    return out_JIO


def _parts(tokens: int, inputs: int, outputs: int, multiprocessors: int) -> int:
    """Into how many parts the tokens are cut, so that all multiprocessors work and sums are few."""
    tiles = (-(-inputs // SPLINE_INPUTS) + -(-inputs // SILU_INPUTS)) * -(-outputs // TILE_OUTPUTS)

    def cost(parts: int) -> float:
        rounds = -(-tiles * parts // multiprocessors)
        sums = parts * FEATURES * inputs * outputs * PART_TOKENS_PER_VALUE if parts > 1 else 0.0
        return rounds * tokens / parts + sums

    return min(range(1, MOST_PARTS + 1), key=cost)


def _aligned(tensor: Tensor) -> Tensor:
    """The copy engine wants tensors that begin at a multiple of 16 bytes, which some views do not."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def _places(*tensors: Tensor | None) -> tuple[int | None, ...]:
    return tuple(None if tensor is None else tensor.data_ptr() for tensor in tensors)


def _groups(ends_E: Tensor | None) -> int:
    return 0 if ends_E is None else len(ends_E)


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _call(name: str, of: Tensor, *arguments: Any) -> None:
    functions, why = _build()
    assert functions is not None, why
    with torch.cuda.device(of.device):
        code = getattr(functions, name)(*arguments, torch.cuda.current_stream().cuda_stream)
    if code:
        raise RuntimeError(f"the {name} kernel of an edge layer gave CUDA error {code}, arguments {arguments}")


@cache
def _build() -> tuple[Functions | None, str | None]:
    """The C functions, or the reason why there are none."""
    if (why := without_compiler()) is not None:
        return None, why
    try:
        library = ctypes.CDLL(str(build_library("kanctl_edge", SOURCES, HEADERS, FLAGS)))
    except (RuntimeError, OSError) as error:
        return None, f"it could not be built: {str(error).strip().splitlines()[0]}"
    return _functions(library), None


def _functions(library: ctypes.CDLL) -> Functions:
    place, number, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    found = Functions(
        library.kanctl_edge_forward, library.kanctl_edge_input_gradient, library.kanctl_edge_weight_gradient
    )
    found.forward.argtypes = [place] * 4 + [number] * 4 + [real, place]
    found.input_gradient.argtypes = [place] * 5 + [number] * 4 + [real, place]
    found.weight_gradient.argtypes = [place] * 5 + [number] * 5 + [real, place]
    for function in found:
        function.restype = number
    return found
