"""The errors of the trainer, one class for each thing that a caller would treat differently."""

from collections.abc import Sequence
from dataclasses import dataclass

from kanctl.errors import BadInputError, KanctlError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a recipe or a file of rows: the key, what was wanted and found, and the line when known."""

    key: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"line {self.line}, " if self.line is not None else ""
        return f"{place}{self.key}: {self.text}" if self.key else f"{place}{self.text}"


class RecipeInvalid(BadInputError):
    """A recipe, an override or a config.json is wrong; `problems` holds every mistake, not the first."""

    def __init__(self, source: str, problems: Sequence[Problem], next_step: str = "") -> None:
        lines = [str(problem) for problem in problems]
        count = f"{len(lines)} mistakes" if len(lines) > 1 else lines.pop()
        super().__init__("\n  ".join([f"{source}: {count}", *lines]), next_step)
        self.source = source
        self.problems = tuple(problems)


class RowsInvalid(BadInputError):
    """A file of rows, such as problems or labelled texts, is wrong; `problems` holds every mistake."""

    SHOWN = 20

    def __init__(self, source: str, problems: Sequence[Problem], next_step: str = "") -> None:
        lines = [str(problem) for problem in problems[: self.SHOWN]]
        if len(problems) > self.SHOWN:
            lines.append(f"and {len(problems) - self.SHOWN} more")
        count = f"{len(problems)} mistakes" if len(problems) > 1 else lines.pop()
        super().__init__("\n  ".join([f"{source}: {count}", *lines]), next_step)
        self.source = source
        self.problems = tuple(problems)


class CorpusInvalid(BadInputError):
    """A corpus folder is missing, empty, or does not match its manifest."""


class CheckpointInvalid(BadInputError):
    """The checkpoint asked for is not there, is not whole, or belongs to another model."""


class TrainingFailed(KanctlError):
    """A run could not go on: the loss is no longer a number, the disk is full, or a rank died."""
