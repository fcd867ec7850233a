"""`python -m kanctl.trainer.bench.ops`: every op's time, memory and error, ours and other ways, case by case.

No time is told of a way whose values or gradients are off: it fails instead. The answer is one line of JSON on stdout;
with --out it is kept as it grows, and the same command goes on. docs/performance.md has the tables.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from . import ada, edge, grove, step
from .document import fill, open_document
from .group import Group

# A CPU would take hours for the cases' own numbers.
CPU_TOKENS = 256
GROUPS: dict[str, Group] = {group.name: group for group in (edge.GROUP, grove.GROUP, ada.GROUP, step.GROUP)}


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run what the results do not have yet; gives the whole document."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    if options.tokens is None and device == "cpu":
        print(f"no GPU here: {CPU_TOKENS} tokens in place of the cases' own number", file=sys.stderr)
        options.tokens = CPU_TOKENS
    plan = {"dtype": str(dtype).removeprefix("torch."), "tokens": options.tokens, "groups": options.groups}
    document = open_document(options.out, plan, "N(0, 1)", options.commit)
    jobs = []
    for group in (GROUPS[name] for name in options.groups):
        cases = [replace(case, tokens=options.tokens or case.tokens) for case in group.cases]
        for case in [case for case in cases if not options.only or options.only in case.name]:
            for way in group.ways(device):
                key = {"op": group.name, "case": case.name, "way": way}
                jobs.append((key, (group, case, way)))
    document["baselines"] = {name: GROUPS[name].ways(device)[0] for name in options.groups}
    document["cases"] = {name: [asdict(case) for case in GROUPS[name].cases] for name in options.groups}
    fill(options.out, document, jobs, lambda job: dict(job[0].run(job[1], job[2], device, dtype)), options.minutes)
    return document


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The module's own options."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.ops", allow_abbrev=False)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="these ops")
    parser.add_argument("--only", metavar="TEXT", help="cases whose name has this in it")
    parser.add_argument("--tokens", type=int, help="in place of the cases' own number")
    parser.add_argument("--out", type=Path, help="results as a file, also those to go on from")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so long")
    parser.add_argument("--commit", help="the commit of this code, where there is no git")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run and print the document, which names what failed."""
    print(json.dumps(bench(parse_arguments(words))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
