"""`python -m kanctl.trainer.explain`: which implementation of each layer of a recipe runs on a machine, and why.

Runs where the recipe would train. The model is built without memory; the answer is one line of JSON on stdout.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kanctl.errors import KanctlError

from .config import RunConfig, from_dict

# A part of a block whose work is torch's own, by the class that has it.
PLAIN = {
    "CausalAttention": "scaled_dot_product_attention, which chooses among PyTorch's own kernels",
    "GatedLinear": "matrix products of the vendor's library",
}


def explain(config: RunConfig, capability: str | None) -> dict[str, Any]:
    """The documented object of `kanctl train explain --json`.

    Args:
        capability: CUDA's compute capability of a GPU to explain for, such as `9.0`; None: what is here.
    """
    # Not at the top: --help and wrong arguments answer without loading torch.
    import torch

    from .model import KanLM

    machine = _machine(config, capability)
    with torch.device("meta"):
        model = KanLM(config.model, seed=config.seed)
    rows: dict[tuple[str, ...], list[int]] = {}
    for layer, block in enumerate(model.each_block()):
        for part, module in (("token mixer", block.mixer), ("channel mixer", block.channel)):
            for row in _rows(part, module, machine, config.engine.dtype):
                rows.setdefault(row, []).append(layer)
    names = ("part", "layer", "work", "implementation", "reason")
    return {
        "recipe": config.name,
        "device": machine.device,
        "capability": None if machine.capability is None else ".".join(map(str, machine.capability)),
        "triton": None if machine.triton is None else ".".join(map(str, machine.triton)),
        "dtype": config.engine.dtype,
        "rows": [{"layers": layers, **dict(zip(names, row, strict=True))} for row, layers in rows.items()],
    }


def _machine(config: RunConfig, capability: str | None) -> Any:
    import torch

    from .ops.route import LEAST_TRITON, Machine, machine_of

    if capability is not None:
        major, minor = map(int, capability.split("."))
        return Machine(device="cuda", capability=(major, minor), triton=LEAST_TRITON)
    is_gpu = config.engine.device != "cpu" and torch.cuda.is_available()
    return machine_of(torch.device("cuda:0" if is_gpu else "cpu"))


def _rows(part: str, module: Any, machine: Any, dtype: str) -> Iterator[tuple[str, ...]]:
    """(part, layer, work, implementation, reason) of a mixer: of each layer in it that has routes, else of itself."""
    routed = [(name, each) for name, each in module.named_modules() if hasattr(each, "routes")]
    if not routed:
        kind = type(module).__name__
        yield part, kind, "all", "torch", PLAIN.get(kind, "matrix products of the vendor's library")
    for name, each in routed:
        title = f"{name or part}: {type(each).__name__}"
        routes = each.routes(machine, dtype)
        if len(set(routes.values())) == 1:
            routes = {"all": next(iter(routes.values()))}
        for work, route in routes.items():
            yield part, title, work, route.implementation, route.reason


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The module's own options."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.explain", allow_abbrev=False)
    parser.add_argument("--config", required=True, help="a run's config, as config.json has it, as text")
    parser.add_argument("--capability", help="a GPU's compute capability, in place of what is here")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, print the answer, return the exit code (kanctl/errors.py)."""
    options = parse_arguments(words)
    try:
        tree: Mapping[str, object] = json.loads(options.config)
        print(json.dumps(explain(from_dict(tree), options.capability)))
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
