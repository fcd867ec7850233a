"""Bytes of Python code get the class of their token, and each class its own figures."""

from types import SimpleNamespace

import numpy as np
import pytest

from kanctl.trainer.errors import CorpusInvalid
from kanctl.trainer.evaluation.subject import Predictions
from kanctl.trainer.evaluation.token_classes import CLASSES, code_tokens, documents, token_measures, whole_share

CODE = 'def f(x):  # é\n    return "ü" + str(1.5)\n'


def test_each_token_of_a_snippet_is_where_it_stands_in_bytes() -> None:
    text = CODE.encode()
    found = [(text[token.begin : token.end].decode(), CLASSES[token.kind]) for token in code_tokens(text)]
    assert found == [
        ("def", "keyword"), ("f", "name"), ("(", "operator"), ("x", "name"), (")", "operator"), (":", "operator"),
        ("# é", "comment"), ("\n", "line end"),
        ("return", "keyword"), ('"ü"', "string"), ("+", "operator"), ("str", "name"), ("(", "operator"),
        ("1.5", "number"), (")", "operator"), ("\n", "line end"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [b'x = """a\n', b"def f(:\n  (", b"\xff\xfe", b"if x:\n    a\n  b\n"])
def test_a_text_that_is_no_python_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        code_tokens(text)


def test_strings_over_lines_and_carriage_returns_keep_their_places() -> None:
    text = 'a = """1\r\né2"""\r\nb = 3'.encode()
    found = [text[token.begin : token.end] for token in code_tokens(text)]
    assert '"""1\r\né2"""'.encode() in found
    assert found[-3:] == [b"b", b"=", b"3"]


def test_documents_end_at_marks_and_the_last_one_where_the_text_ends() -> None:
    assert list(documents(np.array([1, 2, 256, 256, 3, 256, 4]))) == [(0, 2), (4, 5), (6, 7)]


def predictions(targets: np.ndarray, wrong: list[int], nats: float) -> Predictions:
    guesses = targets.copy()
    guesses[wrong] = 0
    return Predictions(targets=targets, nats=np.full(len(targets), nats), guesses=guesses)


def subject(texts: list[str], wrong: list[int]) -> SimpleNamespace:
    targets = np.concatenate([[*text.encode(), 256] for text in texts]).astype(np.int64)
    return SimpleNamespace(
        targets=targets,
        predictions=predictions(targets, wrong, np.log(2)),
        baseline=predictions(targets, [*range(len(targets))], np.log(8)),
    )


def test_every_class_has_its_share_its_cost_and_its_whole_tokens_beside_the_baselines() -> None:
    # The second letter of `def` and the name are wrong.
    rows = {row.name: row for row in token_measures(subject(["def f(x):\n  pass\n"], [1, 4]))}  # type: ignore[arg-type]
    assert rows["keyword: likeliest byte is right"].value == pytest.approx(6 / 7)
    assert rows["keyword: every byte is right"].value == 0.5
    assert rows["name: likeliest byte is right"].value == 0.5
    assert rows["name: every byte is right"].count == 2
    assert rows["space: likeliest byte is right"].value == 1
    assert "space: every byte is right" not in rows
    assert rows["operator: cost"].value == pytest.approx(1)
    assert all(row.baselines["n-grams"] == (3 if "cost" in row.name else 0) for row in rows.values())


def test_documents_that_are_no_python_are_left_out_and_counted() -> None:
    rows = token_measures(subject(["pass\n", "((("], []))  # type: ignore[arg-type]
    assert {row.note for row in rows} == {"1 documents left out: they do not tokenize"}
    assert next(row for row in rows if row.name.startswith("keyword")).count == 4


def test_no_python_at_all_is_bad_input() -> None:
    with pytest.raises(CorpusInvalid, match="no document"):
        token_measures(subject(["((("], []))  # type: ignore[arg-type]


def test_a_token_is_whole_only_with_all_its_bytes() -> None:
    targets = np.array([*b"abcd"])
    tokens = code_tokens(b"ab.cd")
    assert whole_share(predictions(np.array([*b"ab.cd"]), [1], 1.0), tokens) == pytest.approx(2 / 3)
    assert whole_share(predictions(targets, [], 1.0), code_tokens(b"abcd")) == 1.0
