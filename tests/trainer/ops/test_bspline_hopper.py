"""The CUDA kernels for Hopper up to the hardware: whom they serve, and that they compile as they were meant."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from kanctl.trainer.ops.bspline import hopper

HERE = Path("/usr/local/cuda/bin/nvcc")
NVCC = shutil.which("nvcc") or (str(HERE) if HERE.exists() else None)


@pytest.mark.parametrize(
    ("capability", "features", "inputs", "outputs", "dtype", "reason"),
    [
        ((9, 0), 9, 192, 768, "bfloat16", None),
        ((10, 0), 9, 192, 768, "bfloat16", "its instructions are Hopper's alone"),
        (None, 9, 192, 768, "bfloat16", "its instructions are Hopper's alone"),
        ((9, 0), 17, 192, 768, "bfloat16", "it is for five cells, found 13"),
        ((9, 0), 9, 192, 768, "float32", "it is for bfloat16, found float32"),
        ((9, 0), 9, 100, 768, "bfloat16", "wanted inputs a multiple of 16 and outputs of 8, found 100 and 768"),
        ((9, 0), 9, 192, 100, "bfloat16", "wanted inputs a multiple of 16 and outputs of 8, found 192 and 100"),
    ],
)
def test_a_layer_that_does_not_fit_is_told_why(
    capability: tuple[int, int] | None, features: int, inputs: int, outputs: int, dtype: str, reason: str | None
) -> None:
    assert hopper.misfit(capability, features, inputs, outputs, dtype) == reason


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch can build it")
def test_where_it_cannot_be_built_one_line_says_why() -> None:
    reason = hopper.unbuilt()
    assert reason
    assert "\n" not in reason


def test_parts_fill_the_multiprocessors_of_small_layers_and_leave_large_ones_whole() -> None:
    parts = {
        sizes: hopper._parts(16384, *sizes, multiprocessors=132) for sizes in [(192, 768), (768, 192), (4096, 4096)]
    }
    assert parts[192, 768] == 3
    assert parts[768, 192] == 2
    assert parts[4096, 4096] == 1
    assert hopper._parts(1, 192, 768, multiprocessors=132) == 1


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc, CUDA's compiler")
@pytest.mark.parametrize("source", hopper.SOURCES, ids=lambda path: path.stem)
def test_they_compile_with_all_sums_in_registers_and_products_in_flight(source: Path, tmp_path: Path) -> None:
    words = [str(NVCC), *hopper.FLAGS, "-Xptxas", "-v", "-shared", "-Xcompiler", "-fPIC"]
    done = subprocess.run(
        [*words, "-o", str(tmp_path / "kernel.so"), str(source)], capture_output=True, text=True, cwd=source.parent
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    # Also the compiler's word that it made asynchronous products wait for each other.
    assert "warning" not in told.lower(), told
    assert "serialized" not in told, told
    spilled = re.findall(r"(\d+) bytes spill stores", told)
    assert spilled
    assert set(spilled) == {"0"}
