"""The kernel for sparse tensor cores up to the hardware: whom it serves, and that it compiles as it was meant."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from kanctl.trainer.ops.bspline import sparse

HERE = Path("/usr/local/cuda/bin/nvcc")
NVCC = shutil.which("nvcc") or (str(HERE) if HERE.exists() else None)


@pytest.mark.parametrize(
    ("capability", "features", "inputs", "outputs", "dtype", "reason"),
    [
        ((9, 0), 9, 192, 768, "bfloat16", None),
        ((10, 0), 9, 192, 768, "bfloat16", "its instructions are Hopper's alone"),
        (None, 9, 192, 768, "bfloat16", "its instructions are Hopper's alone"),
        ((9, 0), 17, 192, 768, "bfloat16", "2:4 needs five cells, found 13"),
        ((9, 0), 9, 192, 768, "float32", "it is for bfloat16, found float32"),
        ((9, 0), 9, 100, 768, "bfloat16", "wanted inputs a multiple of 16 and outputs of 8, found 100 and 768"),
        ((9, 0), 9, 192, 100, "bfloat16", "wanted inputs a multiple of 16 and outputs of 8, found 192 and 100"),
    ],
)
def test_a_layer_that_does_not_fit_is_told_why(
    capability: tuple[int, int] | None, features: int, inputs: int, outputs: int, dtype: str, reason: str | None
) -> None:
    assert sparse.misfit(capability, features, inputs, outputs, dtype) == reason


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch can build it")
def test_where_it_cannot_be_built_one_line_says_why() -> None:
    reason = sparse.unbuilt()
    assert reason
    assert "\n" not in reason


@pytest.mark.skipif(NVCC is None, reason="needs nvcc, CUDA's compiler")
def test_it_compiles_with_all_accumulators_in_registers_and_products_in_flight(tmp_path: Path) -> None:
    words = [str(NVCC), *sparse.FLAGS, "-Xptxas", "-v", "-shared", "-Xcompiler", "-fPIC"]
    done = subprocess.run(
        [*words, "-o", str(tmp_path / "kernel.so"), str(sparse.SOURCE)], capture_output=True, text=True
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    # Also the compiler's word that it made asynchronous products wait for each other.
    assert "warning" not in told.lower(), told
    assert "serialized" not in told, told
    assert re.findall(r"(\d+) bytes spill stores", told) == ["0"]
