"""The task `tokens`: how well the bytes of Python code are predicted, by the class of the token they belong to.

Classes come from Python's tokenize; documents that it refuses are left out, and counted.
"""

import io
import keyword
import math
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import CorpusInvalid
from ..model import END_OF_DOCUMENT
from .measures import Measure
from .subject import Predictions, Subject

TASK = "tokens"
CLASSES = ("keyword", "name", "number", "string", "comment", "operator", "line end", "space")
BASELINE = "n-grams"
CLASS_OF_TYPE = {
    tokenize.NAME: "name",
    tokenize.NUMBER: "number",
    tokenize.STRING: "string",
    tokenize.COMMENT: "comment",
    tokenize.OP: "operator",
    tokenize.NEWLINE: "line end",
    tokenize.NL: "line end",
}


@dataclass(frozen=True, slots=True)
class CodeToken:
    """A token's place in a text, in bytes, and its class, a number of CLASSES."""

    begin: int
    end: int
    kind: int


def code_tokens(text: bytes) -> list[CodeToken]:
    """The tokens of a Python file, without white space. Raises ValueError for a text that does not tokenize."""
    try:
        source = text.decode()
        lines = io.StringIO(source, newline="").readlines()
        found = list(tokenize.generate_tokens(iter([*lines, ""]).__next__))
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"no Python: {error}") from error
    starts = np.cumsum([0, *(len(line.encode()) for line in lines)]).tolist()
    return [token for token in _classified(found, lines, starts) if token.end > token.begin]


def _classified(found: list[tokenize.TokenInfo], lines: list[str], starts: list[int]) -> Iterator[CodeToken]:
    def place(row: int, column: int) -> int:
        return int(starts[row - 1]) + len(lines[row - 1][:column].encode()) if row <= len(lines) else int(starts[-1])

    for token in found:
        # From Python 3.12 on an f-string is several tokens, whose types have names like this.
        is_string = tokenize.tok_name[token.type].startswith("FSTRING")
        kind = "string" if is_string else CLASS_OF_TYPE.get(token.type)
        if kind == "name" and keyword.iskeyword(token.string):
            kind = "keyword"
        if kind is not None:
            yield CodeToken(place(*token.start), place(*token.end), CLASSES.index(kind))


def token_measures(subject: Subject) -> list[Measure]:
    """Accuracy and bits of each class's bytes, and the share of its tokens whose every byte was the likeliest.

    Raises CorpusInvalid when no document of the validation text is Python.
    """
    targets = subject.targets
    kinds = np.full(len(targets), -1)
    tokens: list[CodeToken] = []
    left_out = 0
    for begin, end in documents(targets):
        try:
            there = code_tokens(targets[begin:end].astype(np.uint8).tobytes())
        except ValueError:
            left_out += 1
            continue
        kinds[begin:end] = CLASSES.index("space")
        for token in there:
            kinds[begin + token.begin : begin + token.end] = token.kind
        tokens += [CodeToken(begin + token.begin, begin + token.end, token.kind) for token in there]
    if not tokens:
        raise CorpusInvalid("no document of the validation text is Python code", "kanctl train evaluate --task text")
    note = f"{left_out} documents left out: they do not tokenize" if left_out else ""
    return [
        measure
        for kind in range(len(CLASSES))
        if (kinds == kind).any()
        for measure in _class_measures(subject, kind, kinds == kind, [t for t in tokens if t.kind == kind], note)
    ]


def documents(targets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Begin and end of each document among the targets, the last one perhaps cut short."""
    begin = 0
    for end in [*np.flatnonzero(targets == END_OF_DOCUMENT).tolist(), len(targets)]:
        if end > begin:
            yield begin, end
        begin = end + 1


def _class_measures(
    subject: Subject, kind: int, is_kind: np.ndarray, tokens: list[CodeToken], note: str
) -> Iterator[Measure]:
    """Up to three figures of one class; each is a function of predictions, the model's and the baseline's."""
    size = int(is_kind.sum())
    figures: list[tuple[str, str, int, Callable[[Predictions], float]]] = [
        ("likeliest byte is right", "share of bytes", size, lambda p: float(is_right(p)[is_kind].mean())),
        ("cost", "bits/byte", size, lambda p: float(p.nats[is_kind].mean()) / math.log(2)),
    ]
    if tokens:
        figures.append(("every byte is right", "share of tokens", len(tokens), lambda p: whole_share(p, tokens)))
    for name, unit, count, figure in figures:
        yield Measure(
            task=TASK, name=f"{CLASSES[kind]}: {name}", value=figure(subject.predictions), unit=unit, count=count,
            baselines={BASELINE: figure(subject.baseline)}, note=note,
        )  # fmt: skip


def is_right(predictions: Predictions) -> np.ndarray:
    """Whether each token's likeliest prediction was the token."""
    right: np.ndarray = predictions.guesses == predictions.targets
    return right


def whole_share(predictions: Predictions, tokens: list[CodeToken]) -> float:
    """The share of tokens whose every byte was the likeliest, each after the true bytes before it."""
    wrong_before = np.concatenate([[0], np.cumsum(~is_right(predictions))])
    ends, begins = ([getattr(token, side) for token in tokens] for side in ("end", "begin"))
    return float((wrong_before[ends] == wrong_before[begins]).mean())
