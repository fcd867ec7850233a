"""`python -m kanctl.trainer.bench.edge`: the edge layer's time, memory and error, ours and other ways, case by case.

No time is printed of a way whose values or gradients are off: it fails instead. Resumes like bench.model.
docs/performance.md has the tables.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ops.bspline import SplineGrid, edge_linear
from ..ops.bspline.reference import edge_linear_reference
from .document import fill, markdown, open_document
from .edge_rivals import RIVALS, SAME_FUNCTION
from .timing import measure

# The relative error, in the Frobenius norm against float64, beyond which a time says nothing.
BOUNDS = {torch.bfloat16: 5e-3, torch.float32: 1e-5}
# Tokens and inputs that are checked: float64 for all would take longer than everything else.
CHECKED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One size of layer."""

    tokens: int
    inputs: int
    outputs: int
    cells: int = 5
    graph: bool = False

    @property
    def name(self) -> str:
        """As tables call it."""
        graphed = ", CUDA graph" if self.graph else ""
        return f"{self.inputs} -> {self.outputs}, G = {self.cells}{graphed}"


CASES = [
    Case(tokens=16384, inputs=4096, outputs=4096),
    Case(tokens=16384, inputs=1024, outputs=4096),
    Case(tokens=16384, inputs=4096, outputs=1024),
    Case(tokens=16384, inputs=192, outputs=768, graph=True),
    Case(tokens=16384, inputs=768, outputs=192, graph=True),
    Case(tokens=16384, inputs=1024, outputs=4096, cells=13),
]
Way = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """The tensors of a case. The weight gives outputs of about unit size."""

    x_NI: Tensor
    weight_JIO: Tensor
    grad_NO: Tensor
    grid: SplineGrid


def make_layer(case: Case, device: str, dtype: torch.dtype) -> Layer:
    """Inputs of N(0, 1), as a normalisation leaves them."""
    grid = SplineGrid(cells=case.cells)
    generator = torch.Generator(device).manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    weight_JIO = draw(grid.bases + 1, case.inputs, case.outputs) * case.inputs**-0.5
    return Layer(draw(case.tokens, case.inputs), weight_JIO, draw(case.tokens, case.outputs), grid)


def ways(layer: Layer, device: str) -> dict[str, tuple[Way, bool]]:
    """Every way to the layer, and whether it computes our function."""
    grid = layer.grid
    found: dict[str, tuple[Way, bool]] = {"ours": (lambda x, weight: edge_linear(x, weight, grid), True)}
    for name, rival in RIVALS.items():
        plain: Way = lambda x, weight, rival=rival: rival(x, weight, grid)  # type: ignore[misc]  # noqa: E731
        found[name] = (plain, name in SAME_FUNCTION)
        if device == "cuda":
            found[f"{name}, compiled"] = (torch.compile(plain, dynamic=False), name in SAME_FUNCTION)
    return found


def run_way(case: Case, name: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way. Raises RuntimeError where it is wrong or does not fit."""
    layer = make_layer(case, device, dtype)
    if name == "gemm":
        return _gemm(layer, case.graph)
    way, is_ours = ways(layer, device)[name]
    errors = check(way, layer) if is_ours else {}
    worst = max(errors.values(), default=0.0)
    # Written so that NaN fails too.
    if not worst <= BOUNDS[dtype]:
        raise RuntimeError(f"wanted errors of at most {BOUNDS[dtype]}, found {errors}")
    with torch.no_grad():
        forward = measure(lambda: way(layer.x_NI, layer.weight_JIO), graph=case.graph)
    both = measure(lambda: _gradients(way, layer), graph=case.graph)
    results = sum(t.numel() * t.element_size() for t in (layer.x_NI, layer.weight_JIO, layer.grad_NO)) / 1e6
    extra_mb = None if both.peak_mb is None else both.peak_mb - results
    return {"forward_ms": forward.ms, "both_ms": both.ms, "extra_mb": extra_mb, "errors": errors}


def check(way: Way, layer: Layer) -> dict[str, float]:
    """The errors of values and gradients against float64, over some tokens and some inputs."""
    y_NO, grad_x_NI, grad_weight_JIO = _gradients(way, layer)
    ends = torch.cat([torch.arange(CHECKED), torch.arange(-CHECKED, 0) + len(layer.x_NI)])
    # Twice the same where there are few tokens, which changes no error.
    rows = (ends % len(layer.x_NI)).to(layer.x_NI.device)
    columns = slice(0, CHECKED)
    x_NI, weight_JIO = layer.x_NI[rows].double().requires_grad_(), layer.weight_JIO.double()
    wanted_NO = edge_linear_reference(x_NI, weight_JIO, layer.grid)
    (wanted_x_NI,) = torch.autograd.grad(wanted_NO, x_NI, layer.grad_NO[rows].double())
    part_JIO = layer.weight_JIO[:, columns].double().requires_grad_()
    some_NO = edge_linear_reference(layer.x_NI[:, columns].double(), part_JIO, layer.grid)
    (wanted_JIO,) = torch.autograd.grad(some_NO, part_JIO, layer.grad_NO.double())
    return {
        "y": _error(y_NO[rows], wanted_NO.detach()),
        "dx": _error(grad_x_NI[rows], wanted_x_NI),
        "dw": _error(grad_weight_JIO[:, columns], wanted_JIO),
    }


def _gradients(way: Way, layer: Layer) -> tuple[Tensor, Tensor, Tensor]:
    x_NI, weight_JIO = layer.x_NI.detach().requires_grad_(), layer.weight_JIO.detach().requires_grad_()
    y_NO = way(x_NI, weight_JIO)
    grad_x_NI, grad_weight_JIO = torch.autograd.grad(y_NO, (x_NI, weight_JIO), layer.grad_NO)
    return y_NO.detach(), grad_x_NI, grad_weight_JIO


def _gemm(layer: Layer, graph: bool) -> dict[str, Any]:
    """The three products alone, by the vendor's library, with the features given."""
    tokens, (features, inputs, _) = len(layer.x_NI), layer.weight_JIO.shape
    features_NF = torch.randn(tokens, features * inputs, device=layer.x_NI.device, dtype=layer.x_NI.dtype)
    weight_FO, grad_NO = layer.weight_JIO.flatten(0, 1), layer.grad_NO
    forward = measure(lambda: features_NF @ weight_FO, graph=graph)
    both = measure(lambda: (features_NF @ weight_FO, grad_NO @ weight_FO.T, features_NF.T @ grad_NO), graph=graph)
    return {"forward_ms": forward.ms, "both_ms": both.ms, "extra_mb": None, "errors": {}}


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing in the results file; gives the whole document."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    cases = [case for case in CASES if not options.only or case.name in options.only]
    if options.tokens:
        cases = [Case(**{**asdict(case), "tokens": options.tokens}) for case in cases]
    plan = {"dtype": str(dtype), "tokens": options.tokens or CASES[0].tokens}
    document = open_document(options.out, plan, "N(0, 1)", options.commit)
    names = ["gemm", "ours", *RIVALS, *(f"{name}, compiled" for name in RIVALS if device == "cuda")]
    jobs = [({"case": case.name, "way": name}, (case, name)) for case in cases for name in names]
    fill(options.out, document, jobs, lambda job: run_way(*job, device, dtype), options.minutes)
    return document


def table(document: Mapping[str, Any]) -> str:
    """All rows as Markdown; ratios are the time of `gemm` over the way's, so more is better."""
    gemm = {row["case"]: row for row in document["rows"] if row["way"] == "gemm"}
    lines = []
    for row in document["rows"]:
        against = gemm.get(row["case"], row)
        extra, errors = row["extra_mb"], row["errors"]
        lines.append(
            [
                row["case"],
                row["way"],
                f"{row['forward_ms']:.3f} ({against['forward_ms'] / row['forward_ms']:.2f}x)",
                f"{row['both_ms']:.3f} ({against['both_ms'] / row['both_ms']:.2f}x)",
                "-" if extra is None else f"{extra:,.0f}",
                f"{max(errors.values()):.1e}" if errors else "-",
            ]
        )
    return markdown(["layer", "way", "forward ms (x gemm)", "forward + backward ms", "MB beyond", "error"], lines)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.edge", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("bench-edge.json"), help="results, also those to go on from")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=[case.name for case in CASES], help="these cases")
    parser.add_argument("--tokens", type=int, help="in place of the cases' own number")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so long")
    parser.add_argument("--commit", help="the commit of this code, where there is no git")
    return parser.parse_args(words)


def main() -> int:
    """Run, print the table, and give the exit code: 1 where something failed."""
    document = bench(parse_arguments())
    print(table(document))
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
