"""`python -m kanctl.trainer.evaluate`: what a run's model is worth, each figure beside its baselines.

The edge: arguments, the run's files, one JSON document. What is measured, and how, is evaluation/'s.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kanctl.errors import BadInputError, KanctlError

from .errors import CorpusInvalid

TASK_NAMES = ("text", "tokens", "recall", "code")
# The shortest sequence with room for queries and pairs, and the longest with keys enough.
RECALL_TOKENS = (128, 65_536)


def evaluate_run(options: argparse.Namespace) -> dict[str, Any]:
    """The documented object of `kanctl train evaluate --json`. Raises CheckpointInvalid and CorpusInvalid."""
    import torch

    from .checkpoint import checkpoint_step, load_model
    from .data.loader import Corpus
    from .evaluation.code.humaneval import CodeOptions
    from .evaluation.recall import LENGTHS
    from .evaluation.subject import Subject
    from .evaluation.tasks import TASKS, EvaluateOptions

    start_s = time.monotonic()
    tasks = chosen_tasks(options.task, has_problems=options.problems is not None)
    run_dir: Path = options.run_dir
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, config = load_model(run_dir, options.checkpoint, device=device)
    folder = options.corpus or run_dir.resolve().parent.parent / "corpora" / config.data.corpus
    most = None if options.max_bytes is None else max(1, options.max_bytes // config.model.context_tokens)
    subject = Subject(model, Corpus(folder), device=device, most_windows=most, progress=_say)
    if not subject.text:
        raise CorpusInvalid(f"{folder}: the validation text has no bytes", "kanctl train prepare --replace")
    of_tasks = EvaluateOptions(
        recall_lengths=tuple(options.recall_length or LENGTHS),
        problems=options.problems,
        code=CodeOptions(
            samples=options.samples, temperature=options.temperature, most_problems=options.max_problems
        ),
    )  # fmt: skip
    measures = [measure for task in tasks for measure in TASKS[task](subject, of_tasks)]
    return {
        "run": run_dir.resolve().name,
        "checkpoint_step": checkpoint_step(run_dir, options.checkpoint),
        "device": device,
        "seconds": round(time.monotonic() - start_s, 1),
        "measures": [measure.row() for measure in measures],
    }


def chosen_tasks(words: Sequence[str] | None, *, has_problems: bool) -> list[str]:
    """The tasks asked for, in the order of TASK_NAMES. Nothing means text, `all` each that has what it needs.

    Raises BadInputError for code without problems.
    """
    wanted = set(words or ["text"])
    if "code" in wanted and not has_problems:
        raise BadInputError("wanted a file of programming problems for --task code", "--problems HumanEval.jsonl.gz")
    every = {name for name in TASK_NAMES if name != "code" or has_problems}
    return [name for name in TASK_NAMES if name in wanted | (every if "all" in wanted else set())]


def table(result: dict[str, Any]) -> str:
    """The measures as lines of text: a figure, then its baselines."""
    lines = []
    for row in result["measures"]:
        baselines = ", ".join(f"{name} {value:g}" for name, value in row["baselines"].items() if value is not None)
        lines.append(f"{row['name']}: {row['value']:g} {row['unit']} ({baselines}) of {row['count']}")
    return "\n".join(lines)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _recall_length(word: str) -> int:
    """An argument type: a whole number of tokens."""
    least, most = RECALL_TOKENS
    if not word.isdecimal() or not least <= int(word) <= most:
        raise argparse.ArgumentTypeError(f"wanted {least} to {most} tokens, found {word}")
    return int(word)


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What evaluate_run takes. Raises SystemExit for wrong words."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.evaluate", allow_abbrev=False)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--corpus", type=Path, help="folder of the corpus; default: the run's own")
    parser.add_argument("--checkpoint", default="last", help="last, or the step of a checkpoint")
    parser.add_argument(
        "--task", action="append", choices=[*TASK_NAMES, "all"], help="default: text; several can be given"
    )
    parser.add_argument("--max-bytes", type=int, help="evaluate on the first so many bytes of text at most")
    parser.add_argument("--recall-length", type=_recall_length, action="append", help="tokens of recall's sequences")
    parser.add_argument("--problems", type=Path, help="programming problems in HumanEval's format, for the task code")
    parser.add_argument("--samples", type=int, default=10, help="programs written for each problem")
    parser.add_argument("--temperature", type=float, default=0.2, help="of the programs")
    parser.add_argument("--max-problems", type=int, help="only the first so many problems")
    parser.add_argument("--json", action="store_true", help="print one JSON document, in one line")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, evaluate, return the exit code (kanctl/errors.py)."""
    options = parse_arguments(words)
    try:
        result = evaluate_run(options)
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    print(json.dumps(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
