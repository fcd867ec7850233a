"""`python -m kanctl.trainer.sample`: write text with a run's checkpoint.

Runs where the run folder is: on a node when the run was made on a cluster. The answer goes to stdout, and nothing else.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kanctl.errors import KanctlError


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, write the text, return the exit code (kanctl/errors.py)."""
    options = _parser().parse_args(words)
    try:
        answer = sample_run(options)
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    print(json.dumps(answer, indent=2) if options.json else f"{answer['prompt']}{answer['text']}")
    return 0


def sample_run(options: argparse.Namespace) -> dict[str, object]:
    """Load the checkpoint and write; bytes that are no UTF-8 show as U+FFFD. Raises CheckpointInvalid."""
    # Not at the top: --help and wrong arguments answer without loading torch.
    import torch

    from .checkpoint import load_model
    from .generate import SampleConfig, generate

    device = "cuda" if options.device == "auto" and torch.cuda.is_available() else options.device.replace("auto", "cpu")
    model, run = load_model(options.run_dir, checkpoint=options.checkpoint, device=device)
    config = SampleConfig(
        tokens=options.tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        # Arguments come as text; one that is no valid UTF-8 has its bytes escaped, and the model gets them as they are.
        stops=tuple(stop.encode("utf-8", "surrogateescape") for stop in options.stop),
        seed=options.seed,
    )
    prompt = options.prompt.encode("utf-8", "surrogateescape")
    written = generate(model, [prompt], config)[0]
    return {
        "recipe": run.name,
        "checkpoint": options.checkpoint,
        "prompt": prompt.decode("utf-8", "replace"),
        "text": written.text.decode("utf-8", "replace"),
        "bytes": len(written.text),
        "ended": written.ended,
        "temperature": config.temperature,
        "top_k": config.top_k,
        "top_p": config.top_p,
        "seed": config.seed,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kanctl.trainer.sample", description="Write text with a run's checkpoint.", allow_abbrev=False
    )
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--checkpoint", default="last", help="last, or the step of a checkpoint")
    parser.add_argument("--prompt", default="", help="how the document begins")
    parser.add_argument("--tokens", type=_number(int, 1), default=200, help="bytes to write at most")
    parser.add_argument("--temperature", type=_number(float, 0), default=0.8, help="0 takes the likeliest byte")
    parser.add_argument("--top-k", type=_number(int, 0), default=0, help="draw from the k likeliest bytes; 0: all")
    parser.add_argument("--top-p", type=_share, default=1.0, help="draw from the likeliest bytes that add up to p")
    parser.add_argument("--stop", action="append", default=[], help="end before this text; may be given several times")
    parser.add_argument("--seed", type=_number(int, 0), default=0, help="the same seed writes the same text")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _share(word: str) -> float:
    """An argument type: a number above 0, up to 1."""
    value = float(word)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"wanted a number above 0, up to 1, found {word}")
    return value


def _number(kind: type[int] | type[float], least: int) -> Callable[[str], float]:
    """An argument type: a number of at least `least` (and at most what a seed may be)."""

    def read(word: str) -> float:
        value = kind(word)
        if not least <= value < 2**63:
            raise argparse.ArgumentTypeError(f"wanted a number of at least {least}, found {word}")
        return value

    read.__name__ = "number" if kind is float else "whole number"
    return read


if __name__ == "__main__":
    sys.exit(main())
