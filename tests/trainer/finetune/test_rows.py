"""Labelled texts: what is read, and that every mistake of both files is told with its line."""

from pathlib import Path

import pytest

from kanctl.errors import BadInputError
from kanctl.trainer.errors import RowsInvalid
from kanctl.trainer.finetune.rows import Columns, read_sets

GOOD = "sentence\tlabel\nit is good \t1\nit is bad\t0\n"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mistakes(tmp_path: Path, train: str | bytes, validation: str | bytes = GOOD) -> list[tuple[int | None, str, str]]:
    with pytest.raises(RowsInvalid) as caught:
        read_sets(write(tmp_path, "a.tsv", train), write(tmp_path, "b.tsv", validation), Columns())
    assert str(tmp_path / "a.tsv") in str(caught.value)
    return [(problem.line, problem.key, problem.text) for problem in caught.value.problems]


def test_texts_labels_and_classes_are_read(tmp_path: Path) -> None:
    more = "\ufeffid\tlabel\tsentence\r\n7\tgut\t é, schön \r\n8\tböse\tno\r\n9\tgut\t é, schön\r\n"
    sets = read_sets(write(tmp_path, "a.tsv", more), write(tmp_path, "b.tsv", more), Columns())
    assert [(row.text.decode(), row.label, row.line) for row in sets.train] == [
        ("é, schön", "gut", 2),
        ("no", "böse", 3),
        ("é, schön", "gut", 4),
    ]
    assert sets.classes == ("böse", "gut")
    assert sets.counts()[1] == {"label": "gut", "train_count": 2, "validation_count": 2}
    assert sets.seen() == 3


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", "y\tx\nno\tone\nyes\ttwo\n")
    sets = read_sets(path, path, Columns(text="x", label="y"))
    assert [row.text for row in sets.train] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("train", "found"),
    [
        ("text\tlabel\nx\t1\n", [(1, "a.tsv", "one column named sentence, found text, label")]),
        ("label\tlabel\tsentence\nx\t1\ty\n", [(1, "a.tsv", "one column named label, found label, label")]),
        ("", [(1, "a.tsv", "one column named sentence and one named label, found nothing")]),
        ("sentence\tlabel\n", [(None, "a.tsv", "at least one row")]),
        (GOOD + " \t1\n", [(4, "a.tsv, sentence", "wanted some text, found none")]),
        (GOOD + "x\t\n", [(4, "a.tsv, label", "wanted some text, found none")]),
        (GOOD + "\nx\t1\t2\n", [(4, "a.tsv", "wanted 2 columns, found 1"), (5, "a.tsv", "wanted 2 columns, found 3")]),
        (GOOD.encode() + b"\xe9t\xe9\t1\n", [(4, "a.tsv, sentence", "wanted UTF-8, found the byte 0xe9")]),
        (GOOD.encode() + b"x\t\xff\n", [(4, "a.tsv, label", "wanted UTF-8, found the byte 0xff")]),
    ],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, train: str | bytes, found: list[tuple[int | None, str, str]]
) -> None:
    told = mistakes(tmp_path, train)
    assert [(line, key) for line, key, _ in told] == [(line, key) for line, key, _ in found]
    for (_, _, text), (_, _, words) in zip(told, found, strict=True):
        assert words in text


def test_one_class_alone_is_nothing_to_learn(tmp_path: Path) -> None:
    only = "sentence\tlabel\nx\tyes\ny\tyes\n"
    assert mistakes(tmp_path, only, only) == [(None, "a.tsv", "wanted at least two classes, found 'yes' alone")]


def test_mistakes_of_both_files_are_told_at_once(tmp_path: Path) -> None:
    told = mistakes(tmp_path, GOOD + "\t1\n", "sentence\tlabel\nx\t2\n\xe9\n")
    assert [(line, key) for line, key, _ in told] == [(4, "a.tsv, sentence"), (3, "b.tsv"), (2, "b.tsv, label")]
    assert told[2][2] == "wanted a class of the training rows (0, 1), found '2'"


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"gone\.tsv: wanted labelled texts, could not read them: No such file"):
        read_sets(tmp_path / "gone.tsv", write(tmp_path, "b.tsv", GOOD), Columns())


def test_fewer_rows_are_drawn_by_the_seed_and_keep_their_order(tmp_path: Path) -> None:
    many = write(tmp_path, "a.tsv", "sentence\tlabel\n" + "".join(f"row {n}\t{n % 2}\n" for n in range(50)))
    sets = read_sets(many, many, Columns())
    some = sets.limited(10, seed=1)
    lines = [row.line for row in some.train]
    assert len(lines) == len(set(lines)) == 10
    assert lines == sorted(lines)
    assert some == sets.limited(10, seed=1)
    assert some != sets.limited(10, seed=2)
    assert sets.limited(50, seed=1) == sets.limited(None, seed=1) == sets
