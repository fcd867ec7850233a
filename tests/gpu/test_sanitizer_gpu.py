"""The CUDA kernel under NVIDIA's compute-sanitizer: no access out of bounds, none not set, no race in shared memory."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from kanctl.trainer.ops.bspline import sparse

SANITIZER = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not Path(SANITIZER).is_file(), reason="needs compute-sanitizer, a part of the CUDA toolkit"),
    pytest.mark.skipif(torch.cuda.get_device_capability() != sparse.HOPPER, reason="needs a Hopper GPU"),
]
# Tokens and outputs that fill no tile, more stages than the pipeline holds, and a single one.
SCRIPT = """
import torch
from kanctl.trainer.ops.bspline.sparse import sparse_forward
for tokens, inputs, outputs in ((1, 16, 8), (300, 208, 136), (129, 48, 264)):
    x = torch.randn(tokens, inputs, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(9, inputs, outputs, device="cuda", dtype=torch.bfloat16)
    assert sparse_forward(x, weight, 3.0).isfinite().all()
torch.cuda.synchronize()
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_the_sparse_kernel_is_clean(tool: str) -> None:
    # Built here: a compiler under the sanitizer would take minutes.
    assert sparse.unbuilt() is None
    words = [SANITIZER, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SCRIPT]
    done = subprocess.run(words, capture_output=True, text=True)
    if "not supported" in done.stdout.lower():
        pytest.skip(f"{tool} does not serve this machine: {done.stdout.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
