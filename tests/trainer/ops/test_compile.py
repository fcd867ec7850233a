"""Every Triton kernel is compiled for GPUs that are not here, and fits into what a block of theirs may have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kanctl.trainer.ops

LAUNCHES = sorted(path.parent.name for path in Path(kanctl.trainer.ops.__file__).parent.glob("*/launch.py"))
# Shared memory that a block may have. Source: CUDA C++ programming guide, technical specifications.
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
# A few bytes cost nothing; an array that left the registers costs everything. Ampere's products leave fewer registers:
# the gradients of diffusion attention spill there.
SPILLED_BYTES = {80: 2048, 90: 256, 100: 256}


@pytest.mark.slow
@pytest.mark.parametrize("capability", SHARED_BYTES)
@pytest.mark.parametrize("op", LAUNCHES)
def test_kernels_compile_and_fit(op: str, capability: int) -> None:
    script = Path(__file__).parent / "compile_kernels.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    words = [sys.executable, str(script), f"kanctl.trainer.ops.{op}.launch", str(capability)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    kernels = json.loads(done.stdout)
    assert kernels
    for kernel in kernels:
        assert kernel["shared_bytes"] <= SHARED_BYTES[capability], kernel
        assert kernel["spilled_bytes"] <= SPILLED_BYTES[capability], kernel
    if capability == 90 and op == "bspline":
        products = {"forward_kernel", "input_gradient_kernel", "weight_gradient_kernel"}
        assert {kernel["kernel"] for kernel in kernels if kernel["wgmma"]} == products
        assert {kernel["kernel"] for kernel in kernels if kernel["number"] == "fp32"} >= products
