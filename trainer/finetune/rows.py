"""Labelled texts from files of tab-separated values, with every mistake of both files told at once.

One header line, one row a line, no quotes: as GLUE has them. A text is what stands between the tabs, without the
blanks around it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kanctl.errors import BadInputError

from ..errors import Problem, RowsInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the two columns in the header; others are passed over."""

    text: str = "sentence"
    label: str = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One labelled text."""

    text: bytes
    """UTF-8, not empty."""
    label: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """The rows to train on, those to measure on, and the classes of the first, sorted."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    classes: tuple[str, ...]

    def counts(self) -> list[dict[str, object]]:
        """Per class how many rows each set has."""
        train, validation = (Counter(row.label for row in rows) for rows in (self.train, self.validation))
        return [
            {"label": label, "train_count": train[label], "validation_count": validation[label]}
            for label in self.classes
        ]

    def seen(self) -> int:
        """Validation rows whose very text is a training row's too: learning them by heart is enough."""
        texts = {row.text for row in self.train}
        return sum(row.text in texts for row in self.validation)

    def limited(self, most: int | None, seed: int) -> "Sets":
        """At most so many rows of each set, drawn with a seed, in the file's order; the classes stay."""
        if most is None:
            return self
        train, validation = (_drawn(rows, most, seed) for rows in (self.train, self.validation))
        return Sets(train=train, validation=validation, classes=self.classes)


def read_sets(train: Path, validation: Path, columns: Columns) -> Sets:
    """Both files, checked. Raises RowsInvalid with every mistake of both, BadInputError for one that is not there."""
    problems: list[Problem] = []
    sets = {path: _read(path, columns, problems) for path in (train, validation)}
    classes = sorted({row.label for row in sets[train]})
    for path, rows in sets.items():
        if not rows and not problems:
            problems.append(Problem(key=path.name, text="wanted at least one row below the header, found none"))
    if len(classes) == 1:
        problems.append(Problem(key=train.name, text=f"wanted at least two classes, found {classes[0]!r} alone"))
    # With no class read, each row would be a mistake for the sake of another.
    for row in sets[validation] if classes else ():
        if row.label not in classes:
            text = f"wanted a class of the training rows ({_few(classes)}), found {row.label!r}"
            problems.append(Problem(key=f"{validation.name}, {columns.label}", text=text, line=row.line))
    if problems:
        raise RowsInvalid(
            f"{train} and {validation}",
            problems,
            "correct the files; --text-column and --label-column name other columns",
        )
    return Sets(train=tuple(sets[train]), validation=tuple(sets[validation]), classes=tuple(classes))


def _read(path: Path, columns: Columns, problems: list[Problem]) -> list[Row]:
    """The good rows of a file; what is wrong goes to `problems`."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadInputError(f"{path}: wanted labelled texts, could not read them: {error.strerror}") from error
    if not lines[-1]:
        lines.pop()
    names = lines[0].removeprefix(b"\xef\xbb\xbf").rstrip(b"\r").decode("utf-8", "replace").split("\t") if lines else []
    missing = [name for name in (columns.text, columns.label) if names.count(name) != 1]
    if missing:
        wanted = " and one named ".join(missing)
        text = f"wanted a header with one column named {wanted}, found {_few(names) if lines else 'nothing'}"
        problems.append(Problem(key=path.name, text=text, line=1))
        return []
    places = [names.index(columns.text), names.index(columns.label)]
    rows = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.rstrip(b"\r").split(b"\t")
        mistakes = list(_mistakes(fields, len(names), places, columns))
        problems += [
            Problem(key=", ".join(filter(None, (path.name, key))), text=text, line=number) for key, text in mistakes
        ]
        if not mistakes:
            value, label = (fields[place].strip() for place in places)
            rows.append(Row(text=value, label=label.decode(), line=number))
    return rows


def _mistakes(
    fields: Sequence[bytes], wanted: int, places: Sequence[int], columns: Columns
) -> Iterator[tuple[str, str]]:
    """Pairs of a column and what is wrong with it."""
    if len(fields) != wanted:
        yield "", f"wanted {wanted} columns, found {len(fields)}"
        return
    for name, place in zip((columns.text, columns.label), places, strict=True):
        value = fields[place].strip()
        if not value:
            yield name, "wanted some text, found none"
        try:
            value.decode("utf-8")
        except UnicodeDecodeError as error:
            yield name, f"wanted UTF-8, found the byte 0x{value[error.start]:02x}"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _drawn(rows: tuple[Row, ...], most: int, seed: int) -> tuple[Row, ...]:
    if len(rows) <= most:
        return rows
    picks = np.random.default_rng(seed).permutation(len(rows))[:most]
    return tuple(rows[pick] for pick in sorted(picks))
