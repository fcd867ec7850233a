"""The CUDA kernels under NVIDIA's compute-sanitizer: no access out of bounds, no race in shared memory."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from kanctl.trainer.ops.bspline import hopper

SANITIZER = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not Path(SANITIZER).is_file(), reason="needs compute-sanitizer, a part of the CUDA toolkit"),
    pytest.mark.skipif(torch.cuda.get_device_capability() != hopper.HOPPER, reason="needs a Hopper GPU"),
]
# Tokens and outputs that fill no tile, more stages than the pipeline holds, and a single one.
SCRIPT = """
import torch
from kanctl.trainer.ops.bspline import hopper
def draw(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
def check(x, weight, grad, ends):
    assert hopper.forward(x, weight, 3.0, ends).isfinite().all()
    assert hopper.input_gradient(x, weight, grad, 3.0, ends).isfinite().all()
    assert hopper.weight_gradient(x, grad, 3.0, ends).isfinite().all()
for tokens, inputs, outputs in ((1, 16, 8), (300, 208, 136), (129, 48, 264), (600, 128, 448)):
    check(draw(tokens, inputs), draw(9, inputs, outputs), draw(tokens, outputs), None)
ends = torch.tensor([70, 70, 300], device="cuda", dtype=torch.int32)
check(draw(300, 64), draw(3, 9, 64, 72), draw(300, 72), ends)
torch.cuda.synchronize()
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_the_edge_layers_kernels_are_clean(tool: str) -> None:
    # Built here: a compiler under the sanitizer would take minutes.
    assert hopper.unbuilt() is None
    words = [SANITIZER, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, capture_output=True, text=True)
    if "not supported" in done.stdout.lower():
        pytest.skip(f"{tool} does not serve this machine: {done.stdout.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
