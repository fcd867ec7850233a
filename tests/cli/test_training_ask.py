"""What is sent to a module of the trainer, and what is taken from its lines."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from kanctl.cli.training.ask import ask_module, option_words
from kanctl.cli.training.evaluate import measure_rows
from kanctl.errors import KanctlError


class Saying:
    """A place whose module says these lines."""

    name = "here"

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.asked: list[tuple[str, Sequence[str]]] = []

    def stream_module(self, module: str, words: Sequence[str]) -> Iterator[str]:
        self.asked.append((module, words))
        yield from self.lines


def test_options_without_a_value_are_left_out_and_lists_are_said_one_by_one() -> None:
    options: dict[str, Any] = {"a": None, "b": False, "c": True, "d": 0, "e": ["x", "y"], "f": "-1", "g": []}
    assert option_words(options) == ["--c", "--d=0", "--e=x", "--e=y", "--f=-1"]


def test_the_line_that_is_a_document_is_the_answer_and_others_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    place: Any = Saying("half way", '{"value": 1}')
    assert ask_module(place, "evaluate", ["--x"]) == {"value": 1}
    assert place.asked == [("evaluate", ["--x"])]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "half way" in shown.err


def test_no_answer_is_an_error() -> None:
    place: Any = Saying("half way")
    with pytest.raises(KanctlError, match="evaluate on here ended without an answer"):
        ask_module(place, "evaluate", [])


def test_a_measure_is_a_row_with_its_baselines_and_its_note() -> None:
    measure = {
        "task": "recall", "name": "recall", "value": None, "unit": "share", "count": 3,
        "baselines": {"guessing": 0.0384615, "other": None}, "note": "beyond",
    }  # fmt: skip
    assert measure_rows({"measures": [measure]}) == [
        ("recall", "recall (beyond)", "-", "share", "guessing 0.03846, other -", "3")
    ]
