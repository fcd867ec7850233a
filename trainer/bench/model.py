"""`python -m kanctl.trainer.bench.model`: every component of the model against a GPT baseline of as many parameters.

One training of each variant and learning rate on one device; the rate that gets lowest counts. Each finished training
is written at once, so a run that was cut off, or given --minutes, goes on where it stopped. docs/results.md has the
table.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import OptimConfig
from .variants import counts, variants

RATES = (1e-3, 2e-3, 4e-3)
VALIDATION_SHARE = 0.1


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing in the results file, until the time is up; gives the whole document."""
    import torch

    from .training import BenchPlan, BenchText, train

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = BenchPlan(
        steps=options.steps, sequences=options.sequences, eval_every_steps=options.eval_every, seed=options.seed
    )
    document = _document(options, device, asdict(plan))
    tokens = torch.tensor(list(options.text.read_bytes()), device=device)
    cut = int(len(tokens) * (1 - VALIDATION_SHARE))
    text = BenchText(train=tokens[:cut], val=tokens[cut:])
    deadline_s = time.monotonic() + 60 * options.minutes
    done = {(row["variant"], row["lr"]) for row in document["rows"]}
    for name, rate in _wanted(options, done):
        if time.monotonic() > deadline_s:
            print("time is up; the same command goes on", file=sys.stderr)
            break
        config = variants()[name]
        print(f"{name}, rate {rate:g}", file=sys.stderr)
        optim = OptimConfig(lr_peak=rate, warmup_steps=min(100, options.steps // 10), beta2=0.99)
        try:
            outcome = train(config, optim, plan, text, lambda line: print(f"  {line}", file=sys.stderr))
        except RuntimeError as error:
            # One model that does not fit or does not run here leaves the others their turn.
            print(f"  failed: {error}", file=sys.stderr)
            document["failed"].append({"variant": name, "lr": rate, "error": str(error)[:500]})
            continue
        document["rows"].append({"variant": name, "lr": rate, **counts(config), **asdict(outcome)})
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    return document


def _wanted(options: argparse.Namespace, done: set[tuple[str, float]]) -> list[tuple[str, float]]:
    names = options.only or list(variants())
    return [(name, rate) for rate in options.rates for name in names if (name, rate) not in done]


def _document(options: argparse.Namespace, device: Any, plan: Mapping[str, Any]) -> dict[str, Any]:
    """The results so far, or an empty document of this machine. Raises SystemExit for results of another setting."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    head = {"device": name, "torch": torch.__version__, "plan": dict(plan), "text": options.text.name}
    if options.out.is_file():
        document: dict[str, Any] = json.loads(options.out.read_text()) | {"failed": []}
        if {key: document[key] for key in head} != head:
            raise SystemExit(f"{options.out} holds results of another device or plan; name another file with --out")
        return document
    commit = options.commit or _commit()
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit, **head, "failed": [], "rows": []}


def _commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def best_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each variant the row whose validation loss was lowest at its best evaluation, in the order of variants."""
    best: dict[str, dict[str, Any]] = {}
    for row in document["rows"]:
        if row["variant"] not in best or lowest(row) < lowest(best[row["variant"]]):
            best[row["variant"]] = row
    return [best[name] for name in variants() if name in best]


def lowest(row: Mapping[str, Any]) -> float:
    """The lowest validation loss of a training, nats per byte."""
    return float(min(each["val_loss_nats"] for each in row["evals"]))


def loss_at(row: Mapping[str, Any], key: str, value: float) -> float | None:
    """The validation loss at the last evaluation up to a step or a second; None before the first."""
    seen = [each["val_loss_nats"] for each in row["evals"] if each[key] <= value]
    return seen[-1] if seen else None


def table(document: Mapping[str, Any]) -> str:
    """The results as a Markdown table; equal time is the baseline's whole training."""
    rows = best_rows(document)
    baseline = next((row for row in rows if row["variant"] == "gpt"), None)
    heads = (
        "variant", "parameters (active)", "rate", "loss, best", "at the last step", "at the baseline's time",
        "tokens/s", "x baseline", "peak MiB", "graph",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        time_s = baseline["evals"][-1]["seconds"] if baseline else 0.0
        at_time = loss_at(row, "seconds", time_s)
        ratio = row["tokens_per_s"] / baseline["tokens_per_s"] if baseline else 1.0
        cells = (
            row["variant"], f"{row['parameters'] / 1e6:.2f} M ({row['active_parameters'] / 1e6:.2f} M)",
            f"{row['lr']:g}", f"{lowest(row):.3f}", f"{row['evals'][-1]['val_loss_nats']:.3f}",
            "-" if at_time is None else f"{at_time:.3f}", f"{row['tokens_per_s']:,}", f"{ratio:.2f}",
            f"{row['peak_memory_mib']:,.0f}", "yes" if row["is_graph"] else "no",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, train what is missing, print the table."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.model", allow_abbrev=False)
    parser.add_argument("--text", type=Path, required=True, help="a text file; its last tenth is for validation")
    parser.add_argument("--out", type=Path, default=Path("bench-model.json"), help="results, also those to go on from")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--sequences", type=int, default=64, help="sequences of 256 bytes in a step")
    parser.add_argument("--eval-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="peak learning rates to try")
    parser.add_argument("--only", nargs="+", choices=list(variants()), help="these variants alone")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no training after so many minutes")
    parser.add_argument("--commit", help="the commit of this code, where there is no git")
    document = bench(parser.parse_args(words))
    print(table(document))
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
