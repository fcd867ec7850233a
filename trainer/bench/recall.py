"""`python -m kanctl.trainer.bench.recall`: which token mixers can learn to look up, at equal parameters.

Two layers learn associative recall (evaluation/recall.py) from nothing, by the loss of the answers alone. Resumes like
bench.model. docs/results.md has the table. Letters: B sequences, T tokens.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import OptimConfig
from ..cost import model_cost
from ..model_config import AdaConfig, ModelConfig, MultiresConfig
from .document import fill, markdown, open_document
from .variants import counts, fit_hidden

# Lines of `a=K`: 22 pairs, then 10 queries.
TOKENS, QUERIES, KEY_LETTERS = 128, 10, 1
SEQUENCES = 128
# Different batches; they come again after so many steps.
BATCHES = 500
TEST_BATCHES = 8
RATES = (1e-3, 4e-3)
BASELINE = ModelConfig(
    layers=2, width=128, heads=4, context_tokens=TOKENS, hidden=256, mixers=("softmax",), channel="mlp", qk_norm=True,
    isolate_documents=False,
)  # fmt: skip


def variants() -> dict[str, ModelConfig]:
    """Name -> model, each with the baseline's parameters."""
    data_decay = AdaConfig(decay="data")
    changed = {
        "multires": replace(BASELINE, mixers=("multires",), multires=MultiresConfig(window=16, levels=(8,))),
        "ada": replace(BASELINE, mixers=("ada",)),
        "ada, data decay": replace(BASELINE, mixers=("ada",), ada=data_decay),
        "kalman": replace(BASELINE, mixers=("kalman",)),
        "ada, data decay, then softmax": replace(BASELINE, mixers=("ada", "softmax"), ada=data_decay),
        "kalman, then softmax": replace(BASELINE, mixers=("kalman", "softmax")),
    }
    wanted = model_cost(BASELINE).parameters
    return {"softmax": BASELINE, **{name: fit_hidden(config, wanted) for name, config in changed.items()}}


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing in the results file, until the time is up; gives the whole document."""
    import torch

    from ..evaluation.recall import recall_batch
    from .recall_training import train_recall

    plan = {"steps": options.steps, "sequences": SEQUENCES, "tokens": TOKENS, "queries": QUERIES, "seed": options.seed}
    document = open_document(options.out, plan, "recall", options.commit)
    generator = torch.Generator().manual_seed(options.seed)
    drawn = [
        recall_batch(SEQUENCES, TOKENS, generator, queries=QUERIES, key_letters=KEY_LETTERS)
        for _ in range(min(BATCHES, options.steps) + TEST_BATCHES)
    ]
    is_answer_T = drawn[0][1][0]
    batches = [tokens_BT for tokens_BT, _ in drawn]

    def run(job: tuple[str, float]) -> dict[str, Any]:
        name, rate = job
        config = variants()[name]
        optim = OptimConfig(lr_peak=rate, warmup_steps=min(100, options.steps // 10), beta2=0.99)
        outcome = train_recall(
            config, optim, batches[TEST_BATCHES:], batches[:TEST_BATCHES], is_answer_T, options.steps, options.seed
        )
        print(f"  {outcome['accuracy']:.3f} right", file=sys.stderr)
        return {**counts(config), **outcome}

    jobs = [({"variant": name, "lr": rate}, (name, rate)) for rate in RATES for name in options.only or variants()]
    fill(options.out, document, jobs, run, options.minutes)
    return document


def table(document: Mapping[str, Any]) -> str:
    """The better rate of each variant, as a Markdown table."""
    best: dict[str, dict[str, Any]] = {}
    for row in document["rows"]:
        if row["variant"] not in best or row["accuracy"] > best[row["variant"]]["accuracy"]:
            best[row["variant"]] = row
    rows = [
        (name, f"{row['parameters'] / 1e3:.0f} k", f"{row['lr']:g}", f"{row['accuracy']:.3f}", f"{row['seconds']:.0f}")
        for name, row in best.items()
    ]
    return markdown(("mixers of the two layers", "parameters", "rate", "right answers", "seconds"), rows)


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, train what is missing, print the table."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.bench.recall", allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("bench-recall.json"), help="results, also those to go on from")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(variants()), help="these variants alone")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no training after so many minutes")
    parser.add_argument("--commit", help="the commit of this code, where there is no git")
    document = bench(parser.parse_args(words))
    print(table(document))
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
