"""`python -m kanctl.trainer.finetune`: teach a run's model to sort texts, where the run folder is.

Progress goes to stderr; the answer goes to stdout, in one line with --json.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kanctl.errors import KanctlError


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, tune or check, return the exit code (kanctl/errors.py)."""
    options = _parser().parse_args(words)
    try:
        answer = answer_for(options)
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    print(json.dumps(answer) if options.json else "\n".join(f"{key}: {value}" for key, value in answer.items()))
    return 0


def answer_for(options: argparse.Namespace) -> dict[str, object]:
    """The documented object. Raises the errors of job.finetune_run."""
    # Not at the top: --help and wrong arguments answer without loading torch.
    import torch

    from .job import Job, check_job, finetune_run
    from .rows import Columns
    from .tune import TuneConfig

    tuning = TuneConfig(
        epochs=options.epochs,
        steps=options.steps,
        batch=options.batch,
        lr_peak=options.lr,
        pooling=options.pooling,
        frozen=options.freeze,
        seed=options.seed,
    )
    job = Job(
        run_dir=options.run_dir,
        train=options.train,
        validation=options.validation,
        name=options.name or default_name(options.train),
        checkpoint=options.checkpoint,
        columns=Columns(text=options.text_column, label=options.label_column),
        tuning=tuning,
        most_rows=options.max_rows,
        fresh_baseline=not options.no_fresh_baseline,
        device="cuda"
        if options.device == "auto" and torch.cuda.is_available()
        else options.device.replace("auto", "cpu"),
    )
    return check_job(job) if options.check else finetune_run(job, lambda line: print(line, file=sys.stderr, flush=True))


def default_name(train: Path) -> str:
    """The name of the training file's folder and its own, as a name may be."""
    words = re.sub(r"[^a-z0-9]+", "-", f"{train.resolve().parent.name}-{train.stem}".lower()).strip("-")
    return words[:63].rstrip("-") or "texts"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kanctl.trainer.finetune",
        description="Teach a run's model to sort texts into classes.",
        allow_abbrev=False,
    )
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--train", type=Path, required=True, help="tab-separated texts and labels to learn from")
    parser.add_argument("--validation", type=Path, required=True, help="the same kind of file, to measure on")
    parser.add_argument("--text-column", default="sentence", help="name of the texts' column")
    parser.add_argument("--label-column", default="label", help="name of the labels' column")
    parser.add_argument("--name", type=_name, help="of the folder below finetunes; default: of the training file")
    parser.add_argument("--checkpoint", default="last", help="last, or the step of a checkpoint")
    parser.add_argument("--epochs", type=_number(int), default=3, help="times that each text is seen")
    parser.add_argument("--steps", type=_number(int), help="optimiser steps, instead of epochs")
    parser.add_argument("--batch", type=_number(int), default=32, help="texts of one step")
    parser.add_argument("--lr", type=_number(float), default=1e-3, help="highest learning rate")
    parser.add_argument("--pooling", choices=["last", "mean"], default="mean", help="what the head reads of a text")
    parser.add_argument("--freeze", action="store_true", help="train the head alone")
    parser.add_argument("--seed", type=_seed, default=1, help="the same seed gives the same result")
    parser.add_argument("--max-rows", type=_number(int), help="at most so many rows of each file, drawn with the seed")
    parser.add_argument(
        "--no-fresh-baseline", action="store_true", help="leave out the same network from fresh weights"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--check", action="store_true", help="read and verify all, train nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON document, in one line")
    return parser


def _name(word: str) -> str:
    """An argument type: what may stand in a path without quoting."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", word):
        raise argparse.ArgumentTypeError(f"wanted 1 to 63 lower-case letters, digits and hyphens, found {word!r}")
    return word


def _seed(word: str) -> int:
    """An argument type: a whole number from 0."""
    value = int(word)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 0 to 2^32 - 1, found {word}")
    return value


def _number(kind: type[int] | type[float]) -> Callable[[str], Any]:
    """An argument type: a finite number above 0."""

    def read(word: str) -> float:
        value = kind(word)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"wanted a number above 0, found {word}")
        return value

    read.__name__ = "number" if kind is float else "whole number"
    return read


if __name__ == "__main__":
    sys.exit(main())
