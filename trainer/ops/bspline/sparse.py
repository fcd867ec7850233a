"""The forward pass on Hopper's sparse tensor cores: kernel.cu, built on first use by torch's loader, called as plain C.

Where it cannot be built or does not fit, one line says why, and another implementation runs.
"""

import ctypes
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernel.cu")
# Only for this very architecture: the instructions are not part of any later one.
FLAGS = ["-O3", "-gencode=arch=compute_90a,code=sm_90a"]
HOPPER = (9, 0)
# The kernel's own sizes: bases of five cells and SiLU, inputs of one stage, outputs whose rows lie at 16 bytes.
FEATURES, INPUTS, OUTPUTS = 9, 16, 8


def misfit(capability: tuple[int, int] | None, features: int, inputs: int, outputs: int, dtype: str) -> str | None:
    """Why the kernel does not serve such a layer on such a GPU; None where it does."""
    if capability != HOPPER:
        return "its instructions are Hopper's alone"
    if features != FEATURES:
        return f"2:4 needs five cells, found {features - 4}"
    if dtype != "bfloat16":
        return f"it is for bfloat16, found {dtype}"
    if inputs % INPUTS or outputs % OUTPUTS:
        return f"wanted inputs a multiple of {INPUTS} and outputs of {OUTPUTS}, found {inputs} and {outputs}"
    return None


@cache
def unbuilt() -> str | None:
    """Why the kernel cannot be built here; None when it is. The first call builds it, in seconds."""
    return _build()[1]


def sparse_forward(x_NI: Tensor, weight_JIO: Tensor, limit: float) -> Tensor:
    """The layer's outputs (N, O), for sizes without a misfit, where nothing is unbuilt.

    Raises RuntimeError with CUDA's error code when the launch fails.
    """
    function, _ = _build()
    assert function is not None
    tokens, inputs = x_NI.shape
    outputs = weight_JIO.shape[2]
    y_NO = x_NI.new_empty((tokens, outputs))
    if not y_NO.numel():
        return y_NO
    with torch.cuda.device(x_NI.device):
        stream = torch.cuda.current_stream().cuda_stream
        places = (x_NI.data_ptr(), weight_JIO.data_ptr(), y_NO.data_ptr())
        code = function(*places, tokens, inputs, outputs, limit, stream)
    if code:
        raise RuntimeError(f"the sparse forward kernel of ({tokens}, {inputs}) x {outputs} gave CUDA error {code}")
    return y_NO


@cache
def _build() -> tuple[Any, str | None]:
    """The C function, or the reason why there is none."""
    # Slow to import, and only needed here.
    from torch.utils.cpp_extension import CUDA_HOME, load

    if CUDA_HOME is None:
        return None, "no CUDA toolkit found (nvcc on PATH, or CUDA_HOME)"
    # A changed source is another extension, never a rebuilt one.
    name = f"kanctl_edge_24_{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    try:
        path = load(name, [str(SOURCE)], extra_cuda_cflags=FLAGS, is_python_module=False)
    except (RuntimeError, OSError) as error:
        return None, f"it could not be built: {str(error).strip().splitlines()[0]}"
    function = ctypes.CDLL(str(path)).kanctl_edge_forward_24
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int] * 3 + [ctypes.c_float, ctypes.c_void_p]
    return function, None
