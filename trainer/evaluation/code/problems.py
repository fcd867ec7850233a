"""Programming problems in the format of HumanEval: JSON lines, plain or compressed with gzip.

Source: github.com/openai/human-eval, arXiv 2107.03374.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kanctl.errors import BadInputError

from ...errors import Problem, RowsInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeProblem:
    """One line of the file; each value is Python source but the first and the third."""

    task_id: str
    prompt: str
    """How the program begins: imports, the function's head and its description."""
    entry_point: str
    """The function's name."""
    canonical_solution: str
    """A body that passes."""
    test: str
    """Defines check(candidate), which raises when the function is wrong."""

    def program(self, completion: str | bytes) -> bytes:
        """The whole program with a body: it ends without an error when the body is right."""
        body = completion.encode() if isinstance(completion, str) else completion
        return b"".join(
            (self.prompt.encode(), body, b"\n", self.test.encode(), f"\ncheck({self.entry_point})\n".encode())
        )


FIELDS = tuple(CodeProblem.__dataclass_fields__)


def read_problems(path: Path) -> tuple[CodeProblem, ...]:
    """The problems of a .jsonl or .jsonl.gz file. Raises RowsInvalid with every mistake, BadInputError unread."""
    rows, mistakes = [], []
    seen: dict[str, int] = {}
    for line, text in enumerate(_text_of(path).split("\n"), 1):
        if not text.strip():
            continue
        found = list(_mistakes(text))
        if not found:
            row = json.loads(text)
            if seen.setdefault(row["task_id"], line) != line:
                found = [("task_id", f"wanted one of its own, found {row['task_id']!r} of line {seen[row['task_id']]}")]
            rows.append(CodeProblem(**{name: row[name] for name in FIELDS}))
        mistakes += [Problem(key=key, text=wrong, line=line) for key, wrong in found]
    if not rows and not mistakes:
        mistakes.append(Problem(key="", text="wanted at least one problem, found none"))
    if mistakes:
        raise RowsInvalid(str(path), mistakes, "wanted lines of JSON as in HumanEval.jsonl")
    return tuple(rows)


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(
            f"{path}: wanted problems, could not read them: {error}", "give a .jsonl or .jsonl.gz file"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadInputError(
            f"{path}, line {line}: wanted UTF-8, found the byte 0x{error.object[error.start]:02x}"
        ) from error


def _mistakes(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of key and what is wrong with a line."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield "", f"wanted one JSON object, found {text[:40]!r}: {error}"
        return
    if not isinstance(row, dict):
        yield "", f"wanted one JSON object, found {text[:40]!r}"
        return
    for name in FIELDS:
        value = row.get(name)
        # An empty solution is a solution of nothing; an empty prompt is a problem all the same.
        if not isinstance(value, str) or (name != "prompt" and not value.strip()):
            yield name, f"wanted a text, found {json.dumps(value)[:40] if name in row else 'none'}"
        elif name == "entry_point" and not value.isidentifier():
            yield name, f"wanted a function's name, found {value[:40]!r}"
        elif name == "test" and "def check(" not in value:
            yield name, "wanted a definition of check(candidate), found none"
