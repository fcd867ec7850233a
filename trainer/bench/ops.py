"""`python -m kanctl.trainer.bench.ops`: every op's time, memory and error, ours and other ways, case by case.

No time is told of a way whose values or gradients are off: it fails instead. The answer is one line of JSON on stdout;
with --out it is kept as it grows, and the same command goes on. docs/performance.md has the tables.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from kanctl.errors import BadInputError, KanctlError

from . import ada, decode, edge, grove, kalman, mra, step
from .document import fill, open_document
from .group import Group, Work
from .timing import measure_ceilings

Job = tuple[dict[str, str], Callable[[], dict[str, Any]]]
"""A row's key, and what finds the rest."""
# The way that is not measured but follows from the work and the GPU's ceilings.
LIMIT = "limit"
# A CPU would take hours for the cases' own numbers.
CPU_TOKENS = 256
MODULES = (edge, grove, ada, mra, kalman, step, decode)
GROUPS: dict[str, Group] = {module.GROUP.name: module.GROUP for module in MODULES}
# Whole models that fill a GPU's memory are measured when they are asked for.
OPS = [name for name in GROUPS if name != decode.GROUP.name]


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run what the results do not have yet; gives the whole document."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if options.tokens is None and device == "cpu":
        print("no GPU here: smaller cases than a GPU's", file=sys.stderr)
    cases = {name: cases_of(GROUPS[name], device, options.tokens) for name in options.groups}
    names = sorted({case.name for each in cases.values() for case in each})
    if options.only and not any(options.only in name for name in names):
        raise BadInputError(f"--only: wanted a part of one of {'; '.join(names)}; found {options.only!r}")
    plan = {"dtype": str(dtype).removeprefix("torch."), "tokens": options.tokens, "groups": options.groups}
    document = open_document(options.out, plan, "N(0, 1)", options.commit)
    cases = {name: [case for case in each if (options.only or "") in case.name] for name, each in cases.items()}
    jobs: list[Job] = [
        ({"op": name, "case": case.name, "way": way}, partial(run_way, GROUPS[name], case, way, device, dtype))
        for name, each in cases.items()
        for case in each
        for way in GROUPS[name].ways(device)
        if GROUPS[name].serves(case, way) and (options.ways is None or way in options.ways)
    ]
    if device == "cuda":
        jobs += limits(cases)
    document["baselines"] = {name: GROUPS[name].ways(device)[0] for name in options.groups}
    document["cases"] = {name: [asdict(case) for case in each] for name, each in cases.items()}
    fill(options.out, document, jobs, lambda job: job(), options.minutes)
    return document


def run_way(group: Group, case: Any, way: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """The row of one way, less its key."""
    # The compiler gives up on a function that it has compiled for several sizes.
    torch.compiler.reset()
    return dict(group.run(case, way, device, dtype))


def limits(cases: Mapping[str, Sequence[Any]]) -> list[Job]:
    """A row for each case of what no way to it can beat, from what the GPU here reaches."""
    ceilings = cache(measure_ceilings)

    def limit(work: Callable[[Any], Work], case: Any) -> dict[str, Any]:
        return ceilings().limit(work(case))

    return [
        ({"op": name, "case": case.name, "way": LIMIT}, partial(limit, work, case))
        for name, each in cases.items()
        if (work := GROUPS[name].work) is not None
        for case in each
    ]


def cases_of(group: Group, device: str, tokens: int | None) -> list[Any]:
    """The group's cases on a device, with so many tokens; None: with as many as suit the device."""
    cases = group.cases
    if device == "cpu":
        cases = group.cpu_cases or [replace(case, tokens=CPU_TOKENS) for case in cases]
    return [replace(case, tokens=tokens or case.tokens) for case in cases]


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The module's own options."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.ops", allow_abbrev=False)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=OPS, help="these ops")
    parser.add_argument("--only", metavar="TEXT", help="cases whose name has this in it")
    parser.add_argument("--ways", nargs="+", metavar="NAME", help="these ways alone; the same line without goes on")
    parser.add_argument("--tokens", type=int, help="in every case, in place of its own number")
    parser.add_argument("--out", type=Path, help="results as a file, also those to go on from")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so long")
    parser.add_argument("--commit", help="the commit of this code, where there is no git")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run and print the document, which names what failed."""
    try:
        print(json.dumps(bench(parse_arguments(words))))
    except KanctlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
