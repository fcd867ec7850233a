"""The table of tasks: each takes what is evaluated and the options, and gives measures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .code.humaneval import CodeOptions, code_measures
from .measures import Measure
from .recall import LENGTHS, recall_measures
from .subject import Subject
from .text import text_measures
from .token_classes import token_measures


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What single tasks can be asked for."""

    recall_lengths: tuple[int, ...] = LENGTHS
    problems: Path | None = None
    """A file in HumanEval's format; `code` needs it."""
    code: CodeOptions = field(default_factory=CodeOptions)


def _code(subject: Subject, options: EvaluateOptions) -> list[Measure]:
    if options.problems is None:
        raise ValueError("wanted a file of problems")
    return code_measures(subject.model, options.problems, options.code, subject.progress)


TASKS: dict[str, Callable[[Subject, EvaluateOptions], list[Measure]]] = {
    "text": lambda subject, options: text_measures(subject),
    "tokens": lambda subject, options: token_measures(subject),
    "recall": lambda subject, options: recall_measures(subject, options.recall_lengths),
    "code": _code,
}
