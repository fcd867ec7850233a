"""`python -m kanctl.trainer.bench.tiles`: a sweep of the tiles of the edge layer's Triton kernels, on a GPU.

For whoever sets the constants in trainer/ops/bspline/launch.py: the quickest settings of each kernel and case, as JSON.
Settings that do not fit the GPU are left out, and one that gives other values than the constants do is named.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .edge import CASES, Case, Layer, make_layer
from .timing import measure

ROWS, COLUMNS = (2, 4, 8, 16), (128, 256, 512)
# Each setting is compiled, which takes seconds.
TOKENS, INPUTS, OUTPUTS, WARPS, STAGES = (64, 128), (32, 64, 128), (64, 128, 256), (4, 8), (3, 4)
# An accumulator of more values leaves no registers for anything else.
LARGEST_TILE = 128 * 256
Tiles = Mapping[str, int]
Launch = Callable[[Tiles], Tensor]


def launches(layer: Layer) -> dict[str, tuple[Launch, Tiles]]:
    """The kernels by name: a call with given tiles, and the tiles that it has now."""
    from ..ops.bspline import launch

    x, weight, grad, grid = layer.x_NI, layer.weight_JIO, layer.grad_NO, layer.grid
    features = launch.expand(x, grid)
    return {
        "expand": (lambda tiles: launch.expand(x, grid, tiles=tiles), launch.EXPAND),
        "contract": (lambda tiles: launch.contract(x, features, torch.empty_like(x), grid, tiles=tiles), launch.EXPAND),
        "forward": (lambda tiles: launch.forward(x, weight, grid, tiles=tiles), launch.FORWARD),
        "input_gradient": (
            lambda tiles: launch.input_gradient(x, weight, grad, grid, tiles=tiles),
            launch.INPUT_GRADIENT,
        ),
        "weight_gradient": (lambda tiles: launch.weight_gradient(x, grad, grid, tiles=tiles), launch.WEIGHT_GRADIENT),
    }


def settings(now: Tiles) -> Iterator[Tiles]:
    """Every setting that may be worth a try, the present one first."""
    yield now
    if "ROWS" in now:
        for rows, columns, warps in product(ROWS, COLUMNS, WARPS):
            yield {"ROWS": rows, "COLUMNS": columns, "num_warps": warps}
        return
    for bn, bi, bo, warps, stages in product(TOKENS, INPUTS, OUTPUTS, WARPS, STAGES):
        if max(bn * bo, bi * bo) <= LARGEST_TILE:
            yield {"BN": bn, "BI": bi, "BO": bo, "num_warps": warps, "num_stages": stages}


def sweep(kernel: str, launch: Launch, now: Tiles, keep: int) -> list[dict[str, Any]]:
    """The quickest settings with their times, and the present one."""
    from triton.errors import TritonError

    wanted = launch(now).float()
    found: list[dict[str, Any]] = []
    for number, tiles in enumerate(settings(now)):
        try:
            error = float((launch(tiles).float() - wanted).norm() / wanted.norm())
            cost = measure(lambda tiles=tiles: launch(tiles))  # type: ignore[misc]
        except (TritonError, RuntimeError) as failure:
            print(f"  {kernel} {dict(tiles)}: {str(failure).splitlines()[0][:100]}", file=sys.stderr)
            continue
        row = {"ms": cost.ms, **tiles, "is_present": number == 0}
        found.append(row if error < 1e-2 else {**row, "error": error})
    best = sorted(found, key=lambda row: float(row["ms"]))
    return best[:keep] + [row for row in best[keep:] if row["is_present"]]


def sweep_case(case: Case, kernels: Sequence[str], keep: int) -> dict[str, Any]:
    """The sweeps of one case, by kernel."""
    layer = make_layer(case, "cuda", torch.bfloat16)
    chosen = {name: each for name, each in launches(layer).items() if name in kernels}
    return {name: sweep(name, launch, now, keep) for name, (launch, now) in chosen.items()}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    names = ["expand", "contract", "forward", "input_gradient", "weight_gradient"]
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.tiles", allow_abbrev=False)
    parser.add_argument("--kernels", nargs="+", choices=names, default=names)
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=[case.name for case in CASES], help="these cases")
    parser.add_argument("--keep", type=int, default=5, help="settings to show of each kernel")
    parser.add_argument("--out", type=Path, default=Path("bench-tiles.json"))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Sweep, print and write; exit code 5 without a GPU."""
    options = parse_arguments(words)
    if not torch.cuda.is_available():
        print("a sweep needs an NVIDIA GPU, and PyTorch sees none", file=sys.stderr)
        return 5
    document: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": []}
    for case in CASES:
        if not options.only or case.name in options.only:
            print(case.name, file=sys.stderr)
            document["cases"].append({**asdict(case), **sweep_case(case, options.kernels, options.keep)})
            options.out.write_text(json.dumps(document, indent=1) + "\n")
            for kernel in options.kernels:
                for row in document["cases"][-1][kernel]:
                    print(f"  {kernel}: {row}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
