"""`python -m kanctl.trainer.bench.optim`: Kalman's update of weights against AdamW and Muon, each of them tuned.

Trains the model of one shape (nanoGPT's micro) with every setting of a small sweep; the best of each kind is compared
with the best AdamW: steps and seconds to its final loss. Resumes like bench.model. docs/results.md has the tables.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from ..config import OptimConfig, load_recipe
from .document import fill, lowest, markdown, open_document, reached

SHAPE = "shakespeare-micro"
# What is tried of each kind, besides the rates. Rows name what differs from OptimConfig's defaults.
SWEEP: dict[str, dict[str, tuple[float, ...]]] = {
    "adamw": {"lr_peak": (2e-3, 4e-3, 8e-3, 1.6e-2), "beta2": (0.95, 0.99), "weight_decay": (0.1, 0.3)},
    "muon": {"lr_peak": (4e-3, 8e-3, 1.6e-2, 3.2e-2), "momentum": (0.9, 0.95), "weight_decay": (0.1, 0.3)},
    "kalman": {
        "lr_peak": (2e-3, 4e-3, 8e-3, 1.6e-2), "damping": (0.03, 0.1, 0.5), "weight_decay": (0.1, 0.3),
        "refresh_steps": (10, 50),
    },
    "kalman-diagonal": {"lr_peak": (2e-3, 4e-3, 8e-3), "beta2": (0.95, 0.99), "weight_decay": (0.1, 0.3)},
}  # fmt: skip


def settings(kinds: Sequence[str]) -> list[dict[str, Any]]:
    """Every setting of the sweep of these kinds: keyword arguments of OptimConfig."""
    return [
        {"kind": kind, **dict(zip(SWEEP[kind], values, strict=True))}
        for kind in kinds
        for values in product(*SWEEP[kind].values())
    ]


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing in the results file, until the time is up; gives the whole document."""
    from .training import BenchPlan, read_text, train

    plan = BenchPlan(
        steps=options.steps, sequences=options.sequences, eval_every_steps=options.eval_every, seed=options.seed
    )
    model = load_recipe(SHAPE).model
    document = open_document(options.out, {**asdict(plan), "shape": SHAPE}, options.text.name, options.commit)
    text = read_text(options.text)

    def run(setting: dict[str, Any]) -> dict[str, Any]:
        optim = OptimConfig(**setting, warmup_steps=min(100, options.steps // 10))
        return asdict(train(model, optim, plan, text, lambda line: print(f"  {line}", file=sys.stderr)))

    wanted = [setting for setting in settings(options.only or list(SWEEP)) if _is_chosen(setting, options.set)]
    if options.best_of:
        best = best_of_kinds(json.loads(options.best_of.read_text())).values()
        wanted = [setting for setting in wanted if any(setting.items() <= row.items() for row in best)]
    fill(options.out, document, [(setting, setting) for setting in wanted], run, options.minutes)
    return document


def _is_chosen(setting: Mapping[str, Any], chosen: Sequence[str]) -> bool:
    """Whether the setting agrees with each of the words KEY=NUMBER whose key it has."""
    pairs = [word.split("=") for word in chosen]
    return all(setting[key] == float(value) for key, value in pairs if key in setting)


def best_of_kinds(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of each kind the row whose loss at its last step is lowest: what tuning would choose."""
    best: dict[str, dict[str, Any]] = {}
    for row in document["rows"]:
        if row["kind"] not in best or _last(row) < _last(best[row["kind"]]):
            best[row["kind"]] = row
    return {kind: best[kind] for kind in SWEEP if kind in best}


def comparison(document: Mapping[str, Any]) -> str:
    """The best setting of each kind beside the best AdamW, as a Markdown table."""
    best = best_of_kinds(document)
    baseline = best.get("adamw")
    heads = ("optimiser", "best setting", "final loss", "lowest", "ms a step", "x AdamW's time a step",
             "steps to AdamW's final loss", "seconds to it", "AdamW's seconds")  # fmt: skip
    return markdown(heads, [_compared(row, baseline) for row in best.values()])


def _compared(row: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> list[str]:
    each_ms = 1000 * _step_s(row)
    cells = [row["kind"], _setting(row), f"{_last(row):.4f}", f"{lowest(row):.4f}", f"{each_ms:.2f}"]
    if baseline is None:
        return [*cells, "-", "-", "-", "-"]
    there = reached(row, _last(baseline))
    steps, seconds = (str(int(there["step"])), f"{there['seconds']:.1f}") if there else ("never", "never")
    return [
        *cells, f"{_step_s(row) / _step_s(baseline):.2f}", steps, seconds, f"{baseline['evals'][-1]['seconds']:.1f}"
    ]  # fmt: skip


def sweep(document: Mapping[str, Any]) -> str:
    """Every row's setting and losses, as a Markdown table."""
    rows = [(row["kind"], _setting(row), f"{_last(row):.4f}", f"{lowest(row):.4f}") for row in document["rows"]]
    return markdown(("optimiser", "setting", "final loss", "lowest"), rows)


def _setting(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {row[key]:g}" for key in SWEEP[row["kind"]])


def _last(row: Mapping[str, Any]) -> float:
    return float(row["evals"][-1]["val_loss_nats"])


def _step_s(row: Mapping[str, Any]) -> float:
    return float(row["evals"][-1]["seconds"]) / int(row["evals"][-1]["step"])


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, train what is missing, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.optim", allow_abbrev=False)
    parser.add_argument("--text", type=Path, required=True, help="a text file; its last tenth is for validation")
    parser.add_argument("--out", type=Path, default=Path("bench-optim.json"), help="results, also those to go on from")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--sequences", type=int, default=64, help="sequences of the shape's context in a step")
    parser.add_argument("--eval-every", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(SWEEP), help="these optimisers alone")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=NUMBER", help="only settings with this value")
    parser.add_argument("--best-of", type=Path, help="only the best settings of these results: for other seeds")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no training after so many minutes")
    parser.add_argument("--commit", help="the commit of this code, where there is no git")
    document = bench(parser.parse_args(words))
    print(f"{comparison(document)}\n\n{sweep(document)}")
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
