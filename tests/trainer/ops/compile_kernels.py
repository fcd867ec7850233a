"""Compile every Triton kernel of an op for GPUs that are not here, and print what each needs as JSON.

A program of its own, because the interpreter replaces the compiler in a process that has it switched on:
`python compile_kernels.py kanctl.trainer.ops.bspline.launch 90`. A launch's PRECISION "ieee" means float32,
any other bfloat16; kernels without one are compiled for both.
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

OPTIONS = ("num_warps", "num_stages")
FLOATS = ("limit", "scale", "root", "least", "bias", "rate", "epsilon", "fastest", "pace")
INTEGERS = {
    "position": "*i64",
    "ticks": "*i64",
    "offset": "*i32",
    "ends": "*i32",
    "spot": "*i32",
    "low": "*i32",
    "high": "*i32",
    "first": "*i32",
    "last": "*i32",
    "place": "*i64",
    "expert": "*i64",
}


def compile_kernel(kernel: Any, named: dict[str, Any], capability: int, number: str) -> dict[str, Any]:
    """What one kernel needs with tensors of a Triton type whose addresses and rows are multiples of 16 bytes."""
    constants = {name: value for name, value in named.items() if name not in OPTIONS}
    types = {name: "constexpr" if name in constants else kind_of(name, number) for name in kernel.arg_names}
    aligned = {
        (index,): [["tt.divisibility", 16]] for index, name in enumerate(kernel.arg_names) if types[name][0] in "*i"
    }
    source = ASTSource(
        fn=kernel,
        signature=types,
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attrs=aligned,
    )
    options = {name: named[name] for name in OPTIONS if name in named}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {
        "kernel": kernel.__name__,
        "capability": capability,
        "number": number,
        "shared_bytes": compiled.metadata.shared,
        "wgmma": "wgmma.mma_async" in compiled.asm["ptx"],
        **resources(compiled.asm["cubin"]),
    }


def each_number(named: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The constants beside each type of numbers that they serve."""
    precision = named.get("PRECISION")
    if precision is None:
        return [(named, "bf16"), (named, "fp32")]
    return [(named, "fp32" if precision == "ieee" else "bf16")]


def kind_of(name: str, number: str) -> str:
    """A type by an argument's name: the kernels keep to it."""
    if name.endswith("_ptr"):
        return INTEGERS.get(name.removesuffix("_ptr"), f"*{number}")
    return "fp32" if name in FLOATS else "i32"


def resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and bytes of its memory that registers were spilled to."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        words = [str(tool), "--dump-resource-usage", file.name]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    return {"registers": int(found[1]), "spilled_bytes": int(found[2]) + int(found[3])}


if __name__ == "__main__":
    launches, capability = importlib.import_module(sys.argv[1]).compilations(), int(sys.argv[2])
    # Kernels begin early from Hopper on alone.
    known = [
        (kernel, {**named, "EARLY": capability >= 90} if "EARLY" in named else named) for kernel, named in launches
    ]
    jobs = [(kernel, *each) for kernel, named in known for each in each_number(named)]
    print(json.dumps([compile_kernel(kernel, named, capability, number) for kernel, named, number in jobs]))
