"""`python -m kanctl.trainer.bench.model`: every component of the model against a GPT baseline of as many parameters.

One training of each variant and learning rate on one device; the rate that gets lowest counts. Each finished training
is written at once, so a run that was cut off, or given --minutes, goes on where it stopped. docs/results.md has the
table.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kanctl.errors import BadInputError, KanctlError

from ..config import OptimConfig
from .document import fill, loss_at, lowest, markdown, open_document
from .variants import counts, variants

RATES = (1e-3, 2e-3, 4e-3)
# A step's sequences, steps, and steps between evaluations, where the command names none.
GPU_PLAN = {"steps": 2000, "sequences": 64, "eval_every": 250}
# A CPU takes seconds for a GPU's step: enough to see that everything trains, not how well.
CPU_PLAN = {"steps": 20, "sequences": 4, "eval_every": 10}
HEADS = (
    "variant", "parameters (active)", "rate", "loss, best", "at the last step", "at the baseline's time",
    "tokens/s", "x baseline", "peak MiB", "graph",
)  # fmt: skip


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing in the results file, until the time is up; gives the whole document."""
    import torch

    from .training import BenchPlan, read_text, train

    usual = GPU_PLAN if torch.cuda.is_available() else CPU_PLAN
    steps, sequences, eval_every = (
        usual[key] if (value := getattr(options, key)) is None else value
        for key in ("steps", "sequences", "eval_every")
    )
    plan = BenchPlan(steps=steps, sequences=sequences, eval_every_steps=eval_every, seed=options.seed)
    name = options.text.name if options.text else f"standard library of Python {platform.python_version()}"
    document = open_document(options.out, asdict(plan), name, options.commit)
    text = read_text(options.text)

    def run(job: tuple[str, float]) -> dict[str, Any]:
        name, rate = job
        config = variants()[name]
        optim = OptimConfig(lr_peak=rate, warmup_steps=min(100, steps // 10), beta2=0.99)
        outcome = train(config, optim, plan, text, lambda line: print(f"  {line}", file=sys.stderr))
        return {**counts(config), **asdict(outcome)}

    names = [name for name in options.only or variants() if options.matching in name]
    if not names:
        raise BadInputError(f"--matching: wanted a part of one of {'; '.join(variants())}; found {options.matching!r}")
    wanted = [(name, rate) for rate in options.rates for name in names]
    jobs = [({"variant": name, "lr": rate}, (name, rate)) for name, rate in wanted]
    fill(options.out, document, jobs, run, options.minutes)
    return document


def best_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each variant the row whose validation loss was lowest at its best evaluation, in the order of variants."""
    best: dict[str, dict[str, Any]] = {}
    for row in document["rows"]:
        if row["variant"] not in best or lowest(row) < lowest(best[row["variant"]]):
            best[row["variant"]] = row
    return [best[name] for name in variants() if name in best]


def cells(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The results as a table's rows, under HEADS; equal time is the baseline's whole training."""
    rows = best_rows(document)
    baseline = next((row for row in rows if row["variant"] == "gpt"), None)
    lines: list[tuple[str, ...]] = []
    for row in rows:
        time_s = baseline["evals"][-1]["seconds"] if baseline else 0.0
        at_time = loss_at(row, "seconds", time_s)
        ratio = row["tokens_per_s"] / baseline["tokens_per_s"] if baseline else 1.0
        line = (
            row["variant"], f"{row['parameters'] / 1e6:.2f} M ({row['active_parameters'] / 1e6:.2f} M)",
            f"{row['lr']:g}", f"{lowest(row):.3f}", f"{row['evals'][-1]['val_loss_nats']:.3f}",
            "-" if at_time is None else f"{at_time:.3f}", f"{row['tokens_per_s']:,}", f"{ratio:.2f}",
            f"{row['peak_memory_mib']:,.0f}", "yes" if row["is_graph"] else "no",
        )  # fmt: skip
        lines.append(line)
    return lines


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, train what is missing, print the table."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.model", allow_abbrev=False)
    parser.add_argument("--text", type=Path, help="a text file; default: Python's library; a tenth is for validation")
    parser.add_argument("--out", type=Path, help="results, also those to go on from")
    parser.add_argument("--steps", type=int, help="default: 2000 on a GPU")
    parser.add_argument("--sequences", type=int, help="sequences of 256 bytes in a step; default: 64 on a GPU")
    parser.add_argument("--eval-every", type=int, help="default: 250 on a GPU")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="peak learning rates to try")
    parser.add_argument("--only", nargs="+", choices=list(variants()), help="these variants alone")
    parser.add_argument("--matching", default="", help="variants whose name has this in it alone")
    parser.add_argument("--json", action="store_true", help="print the whole document, failures among it")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no training after so many minutes")
    parser.add_argument("--commit", help="the commit of this code, where there is no git")
    options = parser.parse_args(words)
    try:
        document = bench(options)
    except KanctlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(document) if options.json else markdown(HEADS, cells(document)))
    return 1 if document["failed"] and not options.json else 0


if __name__ == "__main__":
    sys.exit(main())
