"""`python -m kanctl.trainer.inside`: look inside a run's model, where the run folder is, and answer with numbers.

Progress goes to stderr; the answer, one line of JSON, to stdout.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from kanctl.errors import KanctlError

# Text that the model reads to show where inputs fall.
MOST_WINDOWS = 32


def look_inside(options: argparse.Namespace) -> dict[str, object]:
    """The documented object of `kanctl train plot --json`. Raises CheckpointInvalid and CorpusInvalid."""
    # Not at the top: --help and wrong arguments answer without loading torch.
    import torch

    from ..checkpoint import checkpoint_step, load_model
    from ..data.loader import Corpus
    from .edges import strongest_edges
    from .history import loss_history
    from .look import Look
    from .mixing import diffusion_kernels, expert_load

    run_dir: Path = options.run_dir
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, config = load_model(run_dir, options.checkpoint, device=device)
    folder = options.corpus or run_dir.resolve().parent.parent / "corpora" / config.data.corpus
    windows_WT = Corpus(folder).validation_windows(config.model.context_tokens, MOST_WINDOWS).to(device)
    look = Look(model, windows_WT)
    _say(f"edges over {windows_WT.numel()} tokens of validation text")
    curves = strongest_edges(model, look.loss_nats, options.edges)
    return {
        "run": run_dir.resolve().name,
        "checkpoint_step": checkpoint_step(run_dir, options.checkpoint),
        "tokens_read": windows_WT.numel(),
        "loss": loss_history(run_dir),
        "edges": [curve.row() for curve in curves],
        "experts": expert_load(model, look.loss_nats),
        "kernels": diffusion_kernels(model),
        **({"formulas": look.formulas(curves, _say)} if options.formula else {}),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _count(word: str) -> int:
    """An argument type: a whole number of edges."""
    if not word.isdecimal() or not 1 <= int(word) <= 64:
        raise argparse.ArgumentTypeError(f"wanted 1 to 64 edges, found {word}")
    return int(word)


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, look, return the exit code (kanctl/errors.py)."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.inside", allow_abbrev=False)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--corpus", type=Path, help="folder of the corpus; default: the run's own")
    parser.add_argument("--checkpoint", default="last", help="last, or the step of a checkpoint")
    parser.add_argument("--edges", type=_count, default=6, help="how many of the strongest edges")
    parser.add_argument("--formula", action="store_true", help="fit a formula to each of them")
    options = parser.parse_args(words)
    try:
        print(json.dumps(look_inside(options)))
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
